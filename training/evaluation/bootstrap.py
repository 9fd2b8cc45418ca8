"""Intervals by resampling users, a cluster bootstrap (Efron & Tibshirani 1993, chapter 8 and section 13.3).

A user's rows are alike, so users are drawn, not rows; of anonymous ones the query group stands for the user, which
is a single row where nothing was shown beside it. A draw is a weight for each user; every
metric is computed from weights, after one sort of the rows. The same draws are used for all scorers:
differences are paired.

`scipy.stats.bootstrap` resamples single rows and computes each draw's statistic from copies of them: no clusters, and
200 draws of 270,000 rows would be sorted 200 times a metric.

Shapes: R draws, U users, N rows, G query groups.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.evaluation.metrics import (
    BINS,
    calibration_bins,
    losses,
    mean_of_groups,
    query_group_metrics,
    weights_of,
)

LEVEL = 0.95
MAX_DRAWN = 1 << 14  # of more users, so many bunches of them are drawn


def drawn_together(user_id: np.ndarray, query_group_id: np.ndarray) -> np.ndarray:
    """Number of what is drawn as one, for each row, 0 to U - 1: its user or, of an anonymous one, its query group.

    Args:
        user_id: (N,) strings; "" or None: anonymous.
        query_group_id: (N,) numbers.
    """
    anonymous = (user_id == "") | (user_id == None)  # noqa: E711
    groups = np.unique(np.where(anonymous, query_group_id, -1), return_inverse=True)[1]
    users = np.unique(np.where(anonymous, "", user_id).astype(str), return_inverse=True)[1]
    own = np.unique(np.where(anonymous, groups, users + groups.max(initial=0) + 1), return_inverse=True)[1]
    if own.max(initial=0) < MAX_DRAWN:
        return own
    return np.random.default_rng(0).integers(MAX_DRAWN, size=own.max() + 1)[own]


def draw_weights(num_users: int, *, draws: int, seed: int) -> np.ndarray:
    """How often each user is drawn, (R, U) float32; each row sums to U."""
    rng = np.random.default_rng(seed)
    counts = [np.bincount(rng.integers(num_users, size=num_users), minlength=num_users) for _ in range(draws)]
    return np.stack(counts).astype(np.float32)


def resampled_metrics(
    label: np.ndarray,
    probability: np.ndarray,
    query_group_id: np.ndarray,
    user: np.ndarray,
    weights_RU: np.ndarray,
    weight: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Every metric in every draw, (R,) each; NaN where a draw has one class only.

    Args:
        label: (N,) 0 to 1.
        probability: (N,) scores; their order ranks.
        query_group_id: (N,) query group of each row.
        user: (N,) user of each row, 0 to U - 1.
        weights_RU: what `draw_weights` drew.
        weight: (N,) how much each row counts; None: all the same.
    """
    row_weight = weights_of(label, weight)
    return {
        **by_order(label, probability, user, weights_RU, row_weight),
        **_by_user(label, probability, user, weights_RU, row_weight),
        **_by_query_group(label, probability, query_group_id, user, weights_RU),
    }


def interval(values_R: np.ndarray) -> list[float] | None:
    """The middle 95 % of the draws in which the metric is defined; None where it is in none."""
    known = values_R[np.isfinite(values_R)]
    if not len(known):
        return None
    return [float(value) for value in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def paired_differences(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    our_draws: Mapping[str, np.ndarray],
    their_draws: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Any] | None]:
    """Difference of each metric, ours minus theirs, and its interval over the same draws."""
    result: dict[str, dict[str, Any] | None] = {}
    for name, draws in our_draws.items():
        mine, other = ours[name], theirs[name]
        between = interval(draws - their_draws[name])
        if mine is None or other is None or between is None:
            result[name] = None
        else:
            result[name] = {"difference": mine - other, "interval": between}
    return result


@np.errstate(divide="ignore", invalid="ignore")
def by_order(
    label: np.ndarray, score: np.ndarray, user: np.ndarray, weights_RU: np.ndarray, row_weight: np.ndarray
) -> dict[str, np.ndarray]:
    """AUC and average precision in every draw, from cumulated weights at the ends of ties; as `resampled_metrics`."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    # Only ties with a positive add to either metric.
    positives = np.flatnonzero(label[order] > 0)
    ties = np.unique(np.searchsorted(last, positives))
    ends = last[ties]
    before = np.where(ties > 0, last[ties - 1], -1)
    users, positive_users = user[order], user[order][positives]
    weights = row_weight[order]
    positive_weights = (row_weight * label)[order][positives]
    tie_of_positive = np.searchsorted(ends, positives)
    auc, precision = np.empty(len(weights_RU)), np.empty(len(weights_RU))
    for draw, weights_U in enumerate(weights_RU):
        seen = np.r_[0.0, np.cumsum(weights_U[users] * weights)]
        hits = np.bincount(
            tie_of_positive, weights=weights_U[positive_users] * positive_weights, minlength=len(ends)
        )
        hits_to = hits.cumsum()
        num_hits = hits.sum()
        others_to, others_before = seen[ends + 1] - hits_to, seen[before + 1] - (hits_to - hits)
        num_others = seen[-1] - num_hits
        below = num_others - (others_to + others_before) / 2
        auc[draw] = (hits * below).sum() / (num_hits * num_others)
        precision_at = hits_to / np.where(seen[ends + 1] > 0, seen[ends + 1], 1)
        precision[draw] = (hits * precision_at).sum() / num_hits
    return {"auc": auc, "average_precision": precision}


@np.errstate(divide="ignore", invalid="ignore")
def _by_user(
    label: np.ndarray,
    probability: np.ndarray,
    user: np.ndarray,
    weights_RU: np.ndarray,
    row_weight: np.ndarray,
) -> dict[str, np.ndarray]:
    """Log loss and calibration error from sums by user; the bins are those of all rows."""
    num_users = weights_RU.shape[1]

    def by_user(values: np.ndarray) -> np.ndarray:
        return np.bincount(user, weights=row_weight * values, minlength=num_users)

    total = weights_RU @ by_user(np.ones(len(label)))
    cell = user * BINS + calibration_bins(probability, row_weight)
    gaps = np.bincount(cell, weights=row_weight * (probability - label), minlength=num_users * BINS)
    return {
        "log_loss": weights_RU @ by_user(losses(label, probability)) / total,
        "calibration_error": np.abs(weights_RU @ gaps.reshape(num_users, BINS)).sum(1) / total,
    }


@np.errstate(divide="ignore", invalid="ignore")
def _by_query_group(
    label: np.ndarray,
    score: np.ndarray,
    query_group_id: np.ndarray,
    user: np.ndarray,
    weights_RU: np.ndarray,
) -> dict[str, np.ndarray]:
    """NDCG@10 and hit rate as weighted means over the query groups that count; NaN where they are too few."""
    groups = query_group_metrics(label, score, query_group_id)
    distinct, first = np.unique(query_group_id, return_index=True)
    owner = user[first[np.searchsorted(distinct, groups["query_group_id"].to_numpy())]]
    found = {}
    for name, column in (("ndcg_at_10", "ndcg"), ("hit_rate_at_10", "hit")):
        known = groups[column].notna().to_numpy()
        weights_RG = weights_RU[:, owner[known]]
        values = weights_RG @ groups[column].to_numpy()[known] / weights_RG.sum(1)
        found[name] = np.full(len(values), np.nan) if mean_of_groups(groups[column]) is None else values
    return found
