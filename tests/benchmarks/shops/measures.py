"""Metrics of scores on one shop's test rows, with intervals over resampled users or requests.

A row of weight w and label y counts as w y positives and w (1 - y) negatives: a 0/1 outcome has weight 1, an aggregate
its impressions and its click rate, a grade its gain. All are computed from weights of the units that are drawn, the
metric itself with weight 1 for each.

Shapes: N rows, U units (users where known, else what was shown together), R draws, G groups, W pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.evaluation.bootstrap import draw_weights, interval

DRAWS = 200
TOP, MIN_GROUPS = 10, 20
BETTER_IF_LOWER = ("log_loss",)


@dataclass(frozen=True, kw_only=True)
class MeasuredRows:
    """The test part of a shop.

    Attributes:
        label: (N,) in [0, 1].
        weight: (N,) > 0.
        group: (N,) what was shown together, numbers.
        unit: (N,) what is drawn anew together, 0 to U - 1.
        pairs: (W,) winners and (W,) losers, places of rows; None: pairs say nothing here.
    """

    label: np.ndarray
    weight: np.ndarray
    group: np.ndarray
    unit: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def positive(self) -> np.ndarray:
        """(N,) weight of positives."""
        return self.weight * self.label

    @property
    def negative(self) -> np.ndarray:
        """(N,) weight of negatives."""
        return self.weight * (1 - self.label)

    def draws(self) -> np.ndarray:
        """(1 + R, U) weights of the units: first all of them once, then the draws, the same for all scorers."""
        num_units = int(self.unit.max()) + 1
        drawn = draw_weights(num_units, draws=DRAWS, seed=0)
        return np.vstack([np.ones((1, num_units), np.float32), drawn])


def measured(rows: MeasuredRows, probability: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric that is defined on these rows, (1 + R,): its value, then the draws."""
    weights_RU = rows.draws()
    found = {
        "auc": _auc(rows, probability, weights_RU),
        "log_loss": _log_loss(rows, probability, weights_RU),
        "ndcg_at_10": _ndcg(rows, probability, weights_RU),
    }
    if rows.pairs is not None:
        found["pairwise_accuracy"] = _pairwise_accuracy(rows, probability, weights_RU)
    return {name: values for name, values in found.items() if values is not None and np.isfinite(values[0])}


def mean_over_seeds(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of several fits' metrics, in each draw."""
    return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def stated(found: Mapping[str, np.ndarray]) -> dict[str, dict[str, object]]:
    """Value and interval of each metric, JSON-able."""
    return {
        name: {"value": float(values[0]), "interval": interval(values[1:])} for name, values in found.items()
    }


def gains(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, dict[str, object]]:
    """By how much ours is better, in each metric: positive is better, for log loss too."""
    return stated(
        {
            name: (theirs[name] - values) if name in BETTER_IF_LOWER else values - theirs[name]
            for name, values in ours.items()
            if name in theirs
        }
    )


def best(metric: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """The scorer with the best value of a metric."""
    sign = -1 if metric in BETTER_IF_LOWER else 1
    return max(
        (name for name, values in found.items() if metric in values),
        key=lambda name: sign * float(found[name][metric][0]),
    )


def _auc(rows: MeasuredRows, score: np.ndarray, weights_RU: np.ndarray) -> np.ndarray:
    """P(score of a positive > of a negative) + ½ P(equal), both drawn by weight."""
    ties = np.unique(score, return_inverse=True)[1]
    found = np.empty(len(weights_RU))
    for draw, weights_U in enumerate(weights_RU):
        weight = weights_U[rows.unit]
        positive, negative = (np.bincount(ties, each * weight) for each in (rows.positive, rows.negative))
        below = np.cumsum(negative) - negative / 2
        both = positive.sum() * negative.sum()
        found[draw] = (positive * below).sum() / both if both else np.nan
    return found


def _log_loss(rows: MeasuredRows, probability: np.ndarray, weights_RU: np.ndarray) -> np.ndarray:
    """Mean of -log p over positives and of -log(1 - p) over negatives, by weight; p is kept 1e-7 away from 0 and 1."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -(rows.positive * np.log(p) + rows.negative * np.log1p(-p))
    return np.asarray(
        weights_RU @ np.bincount(rows.unit, loss) / (weights_RU @ np.bincount(rows.unit, rows.weight))
    )


def _ndcg(rows: MeasuredRows, score: np.ndarray, weights_RU: np.ndarray) -> np.ndarray | None:
    """Mean NDCG@10 of the groups with positives and negatives, gain = label; None where they are too few.

    Rows of equal score get the mean label of them (McSherry & Najork 2008, section 3).
    """
    groups, group = np.unique(rows.group, return_inverse=True)
    counted = np.minimum(np.bincount(group, rows.positive), np.bincount(group, rows.negative)) > 0
    counted &= np.bincount(group) > 1
    if counted.sum() < MIN_GROUPS:
        return None
    tied = np.unique(
        np.stack([group, np.unique(score, return_inverse=True)[1]]), axis=1, return_inverse=True
    )[1]
    tied = tied.ravel()
    expected = (np.bincount(tied, rows.label) / np.bincount(tied))[tied]
    best = _dcg(group, rows.label, rows.label, len(groups))[counted]
    ndcg = _dcg(group, score, expected, len(groups))[counted] / best
    unit = np.zeros(len(groups), dtype=np.int64)
    unit[group] = rows.unit
    weights_RG = weights_RU[:, unit[counted]]
    with np.errstate(invalid="ignore"):
        return np.asarray(weights_RG @ ndcg / weights_RG.sum(1))


def _dcg(group: np.ndarray, score: np.ndarray, gain: np.ndarray, num_groups: int) -> np.ndarray:
    """(G,) Σ gain / log₂(place + 1) over the first ten places."""
    order = np.lexsort((-score, group))
    sorted_groups = group[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_groups, sorted_groups)
    discounted = np.where(place < TOP, gain[order] / np.log2(place + 2), 0.0)
    return np.bincount(sorted_groups, discounted, minlength=num_groups)


def _pairwise_accuracy(rows: MeasuredRows, score: np.ndarray, weights_RU: np.ndarray) -> np.ndarray:
    """How many winners have the higher score than their losers; equal scores count as half."""
    assert rows.pairs is not None
    winner, loser = rows.pairs
    right = (score[winner] > score[loser]) + 0.5 * (score[winner] == score[loser])
    weights_RW = weights_RU[:, rows.unit[winner]]
    return np.asarray(weights_RW @ right / weights_RW.sum(1))
