"""The ranker called directly, with a real model on real features."""

import math
from pathlib import Path

import numpy as np
import pytest

from expectations.contracts.bundle import verify_bundle
from expectations.contracts.source import read_source
from expectations.errors import RequestError
from features.online.reader import DecisionRequest, OnlineFeatures
from serving.ranking.ranker import Ranker
from serving.ranking.sentences import sentences
from tests.serving.shop import HORIZON, SUBJECTS, Shop
from training.data.dataset import read_examples
from training.data.interaction_history import SENTIMENT
from training.inference.predictor import Predictor

pytestmark = pytest.mark.slow


@pytest.fixture(name="ranker", scope="module")
def _ranker(shop, bundles):
    source = read_source(shop.source)
    features = OnlineFeatures(shop.store, source, shop.horizon)
    return Ranker(Predictor.load(bundles[0]), features, source=source)


def decision_request(**changes) -> DecisionRequest:
    base = {"user_id": "u1", "scenario": "campaign", "as_of": HORIZON}
    context = {"channel": "mail", "weather": "rain", "basket_value": 12.5}
    return DecisionRequest(**{**base, "context": context, **changes})


def test_served_probability_is_the_offline_one(ranker: Ranker, later: Shop) -> None:
    """The same time as an example (features joined point in time) and as a request (online store)."""
    data = read_examples(later.examples)
    mask = (data.rows["event_timestamp"] == HORIZON).to_numpy()
    scores = ranker.predictor.score_examples(data, mask)
    rows = data.rows[mask].reset_index(drop=True)
    assert len(rows) == 24 * 8
    sentiments = data.interaction_histories.features[rows["history_id"], :, SENTIMENT]
    assert sentiments.max() == 1 and sentiments.min() == -1
    for user in ("u0", "u1", "u5", "u23"):
        served = ranker.recommend(decision_request(user_id=user), 100)
        offline = {
            item: (scores.text_logit[at], scores.tabular_logit[at], scores.probability[at])
            for at, item in rows.loc[rows["user_id"] == user, "item_id"].items()
        }
        assert len(served.items) == len(offline) == 8
        for item in served.items:
            np.testing.assert_allclose(
                (item.text_logit, item.tabular_logit, item.probability), offline[item.item_id], atol=1e-5
            )


def test_list_is_sorted_and_numbered(ranker: Ranker) -> None:
    ranking = ranker.recommend(decision_request(), 5)
    probabilities = [item.probability for item in ranking.items]
    assert probabilities == sorted(probabilities, reverse=True)
    assert [item.position for item in ranking.items] == [1, 2, 3, 4, 5]
    for item in ranking.items:
        assert item.probability == pytest.approx(
            1 / (1 + math.exp(-item.text_logit - item.tabular_logit)), abs=1e-6
        )
    whole = ranker.recommend(decision_request(), 100).items
    assert [item.item_id for item in whole[:5]] == [item.item_id for item in ranking.items]


def test_reasons_speak_of_this_shopper(ranker: Ranker) -> None:
    best = ranker.recommend(decision_request(), 1).items[0]
    assert SUBJECTS[1] in best.text  # u1 buys dog food
    assert 1 <= len(best.reasons) <= 3
    assert not any("nan" in reason or "{" in reason for reason in best.reasons)


def test_each_feature_of_a_shop_can_be_said(bundles: tuple[Path, Path]) -> None:
    assert set(verify_bundle(bundles[0])[0].numeric) - set(sentences()) == {"context_basket_value"}


def test_cold_start_user_gets_reasons_of_the_items(ranker: Ranker) -> None:
    ranking = ranker.recommend(decision_request(user_id="nobody knows"), 8)
    assert ranking.cold_start
    assert all(item.reasons for item in ranking.items)
    own = ("bought", "spent", "answered none", "came on")
    assert not any(word in reason for item in ranking.items for reason in item.reasons for word in own)


def test_what_may_not_be_shown_is_skipped_with_the_reason(ranker: Ranker) -> None:
    ranking = ranker.recommend(decision_request(candidates=["c1", "c8", "c9"]), 3)
    assert [item.item_id for item in ranking.items] == ["c1"]
    assert "ended" in ranking.skipped["c8"]
    assert "begins" in ranking.skipped["c9"]
    with pytest.raises(RequestError, match="c8 ended on 2020-02-20"):
        ranker.recommend(decision_request(candidates=["c8"]), 3)
    with pytest.raises(RequestError, match="at least 1"):
        ranker.recommend(decision_request(), 0)
