"""Loading a release: bundle and features together, tried by a request before they serve."""

import warnings
from datetime import datetime, timedelta

import pandas as pd

from expectations.contracts.shop_tables import COLD_START_USER
from expectations.contracts.source import Source
from expectations.errors import BundleError, SettingError
from features.online.reader import DecisionRequest, OnlineFeatures
from serving.ranking.ranker import Ranker
from serving.release.release import Release


def load_ranker(release: Release, source: Source) -> Ranker:
    """Load what a release holds and rank once with it, so that it serves or is refused as a whole.

    Args:
        release: what is to serve.
        source: its declaration.

    Raises:
        BundleError: the bundle is altered, incomplete, or wants features that are not there.
        SchemaError, SettingError: something is not there, or nothing may ever be shown.
    """
    from training.inference.predictor import Predictor

    if not release.model.is_dir():
        raise BundleError(f"{release.model} is not there, but the deployment names it; deploy again")
    predictor = Predictor.load(release.model)
    if predictor.hash != release.bundle:
        raise BundleError(
            f"{release.model} holds bundle {predictor.hash[:12]}, the release names {release.bundle[:12]}; "
            "deploy again"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast calls its own on-demand views experimental
        features = OnlineFeatures(release.store, source, datetime.fromisoformat(release.horizon))
    ranker = Ranker(predictor, features, source=source)
    ranker.recommend(_smoke_request(features.catalogue.items, release), 1)
    return ranker


def _smoke_request(items: pd.DataFrame, release: Release) -> DecisionRequest:
    """A request of one candidate: features that the model lacks show up at once, not in a user's request."""
    endless = items["valid_until"].isna() | items["valid_from"].isna()
    shown = items[endless | (items["valid_until"] > items["valid_from"])]
    if shown.empty:
        raise SettingError(
            f"none of the {len(items)} candidates in {release.store} may ever be shown; correct "
            "valid_from and valid_until of the items"
        )
    item, as_of = shown.iloc[0], release.default_as_of()
    if not pd.isna(item["valid_from"]):
        as_of = item["valid_from"].to_pydatetime()
    elif not pd.isna(item["valid_until"]):
        as_of = min(as_of, item["valid_until"].to_pydatetime() - timedelta(seconds=1))
    scenario, candidates = str(item["kind"]), [str(shown.index[0])]
    return DecisionRequest(
        user_id=COLD_START_USER, scenario=scenario, as_of=as_of, context={}, candidates=candidates
    )
