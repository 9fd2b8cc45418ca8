"""Metrics by hand, and against brute force."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from training.evaluation import metrics
from training.evaluation.bootstrap import draw_weights, drawn_together, interval, resampled_metrics


def repeated(label: np.ndarray, score: np.ndarray, groups: np.ndarray) -> dict[str, float | None]:
    """Metrics of as many copies of the rows as it takes that query groups are many enough to be measured."""
    times = np.repeat(np.arange(metrics.MIN_QUERY_GROUPS), len(label))
    many = np.tile(groups, metrics.MIN_QUERY_GROUPS) + 1000 * times
    tiled = (np.tile(values, metrics.MIN_QUERY_GROUPS) for values in (label, score))
    return metrics.metrics_of_probabilities(*tiled, many)


def ndcg_at_10(*rows: np.ndarray) -> float | None:
    return repeated(*rows)["ndcg_at_10"]


def hit_rate_at_10(*rows: np.ndarray) -> float | None:
    return repeated(*rows)["hit_rate_at_10"]


def test_ndcg_by_hand() -> None:
    label = np.array([0, 1, 1, 0])
    score = np.array([4.0, 3.0, 2.0, 1.0])
    expected = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert ndcg_at_10(label, score, np.zeros(4)) == pytest.approx(expected)


def test_query_groups_that_cannot_be_told_do_not_count() -> None:
    label, score = np.array([1, 0, 0, 0]), np.array([1.0, 0.0, 0.0, 0.0])
    assert ndcg_at_10(label, score, np.array([1, 1, 2, 2])) == 1.0
    assert ndcg_at_10(np.zeros(4), score, np.array([1, 1, 2, 2])) is None
    assert ndcg_at_10(np.ones(4), score, np.array([1, 1, 2, 2])) is None
    assert ndcg_at_10(np.full(4, 0.5), score, np.array([1, 1, 2, 2])) is None
    assert ndcg_at_10(label, -score, np.arange(4)) is None  # one offer a time


def test_no_hit_is_reported_where_none_can_be_missed() -> None:
    label, score = np.array([1] + [0] * 9), np.zeros(10)
    assert ndcg_at_10(label, score, np.zeros(10)) is not None
    assert hit_rate_at_10(label, score, np.zeros(10)) is None


def test_few_query_groups_are_not_measured() -> None:
    groups = np.repeat(np.arange(metrics.MIN_QUERY_GROUPS), 2)
    label, score = np.arange(len(groups)) % 2, np.zeros(len(groups))
    assert metrics.metrics_of_probabilities(label, score, groups)["ndcg_at_10"] is not None
    few = slice(2, None)
    assert metrics.metrics_of_probabilities(label[few], score[few], groups[few])["ndcg_at_10"] is None
    users, draws = groups[few] - 1, draw_weights(metrics.MIN_QUERY_GROUPS - 1, draws=3, seed=0)
    drawn = resampled_metrics(label[few], score[few], groups[few], users, draws)
    assert np.isnan(drawn["ndcg_at_10"]).all()


@pytest.mark.parametrize("draws", [None, 3])
def test_a_weighted_row_counts_as_its_impressions(draws: int | None) -> None:
    rng = np.random.default_rng(0)
    impressions, score = rng.integers(1, 9, 60), np.round(rng.random(60), 1)
    clicks = rng.binomial(impressions, score)
    groups = np.arange(60) // 3
    single = np.repeat(np.arange(60), impressions)
    label = np.concatenate([np.arange(n) < k for n, k in zip(impressions, clicks, strict=True)]).astype(float)
    rows = clicks / impressions, score, groups
    repeated_rows = label, score[single], groups[single]
    for name in ("auc", "average_precision", "log_loss"):
        if draws is None:
            together = metrics.metrics_of_probabilities(*rows, impressions.astype(np.float32))[name]
            assert together == pytest.approx(metrics.metrics_of_probabilities(*repeated_rows)[name])
        else:
            weights = draw_weights(20, draws=draws, seed=1)
            together_R = resampled_metrics(*rows, groups, weights, impressions)[name]
            assert np.allclose(together_R, resampled_metrics(*repeated_rows, groups[single], weights)[name])


def test_graded_gains_are_ordered_by_grade() -> None:
    gain = (2.0 ** np.array([3, 0, 1]) - 1) / 7
    found = ndcg_at_10(gain, np.array([1.0, 2.0, 3.0]), np.zeros(3))
    ideal = gain[0] + gain[2] / math.log2(3)
    assert found == pytest.approx((gain[2] + gain[0] / 2) / ideal)


def test_anonymous_rows_are_drawn_by_query_group() -> None:
    users = np.array(["ann", "", "", "", "ann"], dtype=object)
    found = drawn_together(users, np.array([7, 8, 8, 9, 5]))
    assert found[0] == found[4] and found[1] == found[2] and len(set(found)) == 3 == found.max() + 1


def test_a_constant_score_is_worth_a_random_order() -> None:
    label = np.array([1] + [0] * 19)
    zeros = np.zeros(20)
    discounts = sum(1 / math.log2(place + 2) for place in range(10))
    assert ndcg_at_10(label, zeros, zeros) == pytest.approx(discounts / 20)
    assert hit_rate_at_10(label, zeros, zeros) == pytest.approx(0.5)


def test_hit_rate_across_the_tenth_place() -> None:
    # Eight rows ahead; four tied for the two places left, two of them positives: 1 - C(2,2)/C(4,2).
    score = np.array([2.0] * 8 + [1.0] * 4)
    label = np.array([0] * 8 + [1, 1, 0, 0])
    assert hit_rate_at_10(label, score, np.zeros(12)) == pytest.approx(1 - 1 / 6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=5))
def test_ties_are_the_mean_over_all_orders(rows: list[tuple[int, int]]) -> None:
    score = np.array([float(row[0]) for row in rows])
    label = np.array([row[1] for row in rows])
    if label.min() == label.max():
        return
    gains = []
    for order in permutations(range(len(rows))):
        ranked = sorted(order, key=lambda index: -score[index])
        gains.append(sum(label[index] / math.log2(place + 2) for place, index in enumerate(ranked)))
    best = sum(1 / math.log2(place + 2) for place in range(label.sum()))
    assert ndcg_at_10(label, score, np.zeros(len(rows))) == pytest.approx(np.mean(gains) / best)


def test_probability_metrics_by_hand() -> None:
    label, probability = np.array([0.0, 1.0]), np.array([0.25, 0.5])
    assert metrics.log_loss(label, probability) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert metrics.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7))
    many = np.full(1000, 0.1)
    label = np.zeros(1000)
    label[:200] = 1
    # All equal: each bin of 50 rows is compared with its own rate, 4 of 20 bins are all positives.
    assert metrics.calibration_error(label, many) == pytest.approx((4 * 0.9 + 16 * 0.1) / 20)


def test_metrics_without_both_classes_are_none() -> None:
    assert metrics.auc(np.ones(3), np.arange(3)) is None
    assert metrics.average_precision(np.zeros(3), np.arange(3)) is None
    assert metrics.calibration_error(np.zeros(0), np.zeros(0)) is None


def test_coverage_counts_items_in_top_tens() -> None:
    items = np.array([f"i{number}" for number in range(12)] * 2)
    score = np.tile(np.arange(12.0), 2)
    groups = np.repeat([0, 1], 12)
    assert metrics.coverage(items, score, groups, seed=0) == pytest.approx(10 / 12)


def test_weighted_metrics_equal_metrics_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    user = rng.integers(0, 30, 400)
    label = (rng.random(400) < 0.2).astype(np.int64)
    score = np.round(rng.random(400), 1)
    weights = draw_weights(30, draws=5, seed=1)
    draws = resampled_metrics(label, score, user, user, weights)
    for draw in range(5):
        times = weights[draw][user].astype(int)
        repeated = np.repeat(np.arange(400), times)
        assert draws["auc"][draw] == pytest.approx(roc_auc_score(label[repeated], score[repeated]))
        assert draws["average_precision"][draw] == pytest.approx(
            average_precision_score(label[repeated], score[repeated])
        )
        assert draws["log_loss"][draw] == pytest.approx(metrics.log_loss(label[repeated], score[repeated]))
    groups = metrics.query_group_metrics(label, score, user)
    weight = weights[0][groups["query_group_id"].to_numpy()]
    assert draws["ndcg_at_10"][0] == pytest.approx(np.average(groups["ndcg"], weights=weight))


def test_interval_holds_the_metric_and_is_none_without_draws() -> None:
    low, high = interval(np.linspace(0, 1, 1001)) or (0, 0)
    assert (low, high) == pytest.approx((0.025, 0.975))
    assert interval(np.array([np.nan])) is None
