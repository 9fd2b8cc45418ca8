"""A pointer becomes a ranker: the bundle verified and loaded, the features opened, both tried together."""

import gc
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from expectations.contracts.source import Source, read_source
from expectations.errors import BundleError, SettingError, TransientError
from features.online.reader import DecisionRequest, OnlineFeatures
from features.store.client import StoreSettings, open_store
from features.views.shop import COLD_START_USER
from serving.ranking.ranker import Ranker
from serving.release.pointer import DeploymentPointer


def load_ranker(pointer: DeploymentPointer, registry_url: str) -> Ranker:
    """Load what a pointer names and rank once with it, so that it serves or is refused as a whole.

    Args:
        pointer: the deployment.
        registry_url: SQLAlchemy URL of the Feast registry. It has a password: never log it.

    Raises:
        BundleError: the bundle is altered, incomplete, or wants features that are not there.
        SettingError: the pointer names something that is not there.
        TransientError: the Feast registry does not answer.
    """
    from training.inference.predictor import Predictor

    folder = Path(pointer.model)
    if not folder.is_dir():
        raise BundleError(f"{folder} is not there, but the deployment names it; deploy again")
    predictor = Predictor.load(folder)
    if predictor.hash != pointer.bundle:
        raise BundleError(
            f"{folder} holds bundle {predictor.hash[:12]}, the deployment names {pointer.bundle[:12]}; "
            "deploy again"
        )
    source = read_source(Path(pointer.source))
    ranker = Ranker(predictor, _features(pointer, registry_url, source), source=source)
    _smoke_test(ranker, pointer)
    return ranker


def _features(pointer: DeploymentPointer, registry_url: str, source: Source) -> OnlineFeatures:
    online_store, feature_rows = Path(pointer.online_store), Path(pointer.feature_rows)
    for path in (online_store, feature_rows):
        if not path.exists():
            raise SettingError(f"{path} is not there, but the deployment names it; build the features again")
    settings = StoreSettings(project=pointer.project, registry_url=registry_url, online_path=online_store)
    from sqlalchemy.exc import OperationalError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Feast calls its own on-demand views experimental
            return OnlineFeatures(open_store(settings), feature_rows, source)
    except OperationalError:  # its message has the address
        raise TransientError(
            "the Feast registry's database does not answer; is Postgres up? (make up)"
        ) from None


def _smoke_test(ranker: Ranker, pointer: DeploymentPointer) -> None:
    """Rank one candidate: features that the model wants and are not there show up here, not in a request."""
    items = ranker.features.catalogue.items
    endless = items["valid_until"].isna() | items["valid_from"].isna()
    shown = items[endless | (items["valid_until"] > items["valid_from"])]
    if shown.empty:
        raise SettingError(
            f"none of the {len(items)} candidates in {pointer.feature_rows} may ever be shown; correct "
            "valid_from and valid_until of the items"
        )
    item = shown.iloc[0]
    as_of = default_as_of(pointer)
    if not pd.isna(item["valid_from"]):
        as_of = item["valid_from"].to_pydatetime()
    elif not pd.isna(item["valid_until"]):
        as_of = min(as_of, item["valid_until"].to_pydatetime() - timedelta(seconds=1))
    decision_request = DecisionRequest(
        user_id=COLD_START_USER,
        scenario=str(item["kind"]),
        as_of=as_of,
        context={},
        candidates=[str(shown.index[0])],
    )
    ranker.recommend(decision_request, 1)


def default_as_of(pointer: DeploymentPointer) -> datetime:
    """The time of a request that names none, naive UTC."""
    if pointer.clock == "data":
        return datetime.fromisoformat(pointer.horizon)
    return datetime.now(UTC).replace(tzinfo=None)


def freeze_loaded() -> None:
    """Set what is loaded apart from the garbage collector, which else stops a request for 60 ms now and then."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
