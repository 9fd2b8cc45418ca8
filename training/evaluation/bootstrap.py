"""Intervals by resampling users, a cluster bootstrap (Efron & Tibshirani 1993, chapter 8 and section 13.3).

A user's rows are alike, so users are drawn, not rows. A draw is a weight for each user; every
metric is computed from weights, after one sort of the rows. The same draws are used for all scorers:
differences are paired.

`scipy.stats.bootstrap` resamples single rows and computes each draw's statistic from copies of them: no clusters, and
200 draws of 270,000 rows would be sorted 200 times a metric.

Shapes: R draws, U users, N rows, G query groups.
"""

from collections.abc import Mapping

import numpy as np

from training.evaluation.metrics import BINS, calibration_bins, query_group_metrics

LEVEL = 0.95


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
) -> dict[str, np.ndarray]:
    """Every metric in every draw, (R,) each; NaN where a draw has one class only.

    Args:
        label: (N,) 0 or 1.
        probability: (N,) scores; their order ranks.
        query_group_id: (N,) query group of each row.
        user: (N,) user of each row, 0 to U - 1.
        weights_RU: what `draw_weights` drew.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            **_by_order(label, probability, user, weights_RU),
            **_by_user(label, probability, user, weights_RU),
            **_by_query_group(label, probability, query_group_id, user, weights_RU),
        }


def interval(values_R: np.ndarray) -> list[float] | None:
    """The middle 95 % of the draws in which the metric is defined; None where it is in none."""
    known = values_R[np.isfinite(values_R)]
    if not len(known):
        return None
    return [float(value) for value in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def paired_differences(
    ours: Mapping[str, float | None],
    theirs: Mapping[str, float | None],
    our_draws: Mapping[str, np.ndarray],
    their_draws: Mapping[str, np.ndarray],
) -> dict[str, dict[str, object] | None]:
    """Difference of each metric, ours minus theirs, and its interval over the same draws."""
    result: dict[str, dict[str, object] | None] = {}
    for name, draws in our_draws.items():
        mine, other = ours[name], theirs[name]
        between = interval(draws - their_draws[name])
        if mine is None or other is None or between is None:
            result[name] = None
        else:
            result[name] = {"difference": mine - other, "interval": between}
    return result


def _by_order(
    label: np.ndarray, score: np.ndarray, user: np.ndarray, weights_RU: np.ndarray
) -> dict[str, np.ndarray]:
    """AUC and average precision from cumulated weights at the ends of ties."""
    if not label.any():
        return dict.fromkeys(("auc", "average_precision"), np.full(len(weights_RU), np.nan))
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    # Only ties with a positive add to either metric.
    positives = np.flatnonzero(label[order] > 0)
    ties = np.unique(np.searchsorted(last, positives))
    ends = last[ties]
    before = np.where(ties > 0, last[ties - 1], -1)
    users, positive_users = user[order], user[order][positives]
    tie_of_positive = np.searchsorted(ends, positives)
    auc, precision = np.empty(len(weights_RU)), np.empty(len(weights_RU))
    for draw, weights_U in enumerate(weights_RU):
        seen = np.r_[0.0, np.cumsum(weights_U[users], dtype=np.float64)]
        hits = np.bincount(tie_of_positive, weights=weights_U[positive_users], minlength=len(ends))
        hits_to = hits.cumsum()
        num_hits = hits_to[-1]
        others_to, others_before = seen[ends + 1] - hits_to, seen[before + 1] - (hits_to - hits)
        num_others = seen[-1] - num_hits
        below = num_others - (others_to + others_before) / 2
        auc[draw] = (hits * below).sum() / (num_hits * num_others)
        precision_at = hits_to / np.maximum(seen[ends + 1], 1)
        precision[draw] = (hits * precision_at).sum() / num_hits
    return {"auc": auc, "average_precision": precision}


def _by_user(
    label: np.ndarray, probability: np.ndarray, user: np.ndarray, weights_RU: np.ndarray
) -> dict[str, np.ndarray]:
    """Log loss and calibration error from sums by user; the bins are those of all rows."""
    num_users = weights_RU.shape[1]
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -np.where(label > 0, np.log(p), np.log1p(-p))
    num_rows = weights_RU @ np.bincount(user, minlength=num_users)
    cell = user * BINS + calibration_bins(probability)
    gaps = np.bincount(cell, weights=probability - label, minlength=num_users * BINS)
    return {
        "log_loss": weights_RU @ np.bincount(user, weights=loss, minlength=num_users) / num_rows,
        "calibration_error": np.abs(weights_RU @ gaps.reshape(num_users, BINS)).sum(1) / num_rows,
    }


def _by_query_group(
    label: np.ndarray,
    score: np.ndarray,
    query_group_id: np.ndarray,
    user: np.ndarray,
    weights_RU: np.ndarray,
) -> dict[str, np.ndarray]:
    """NDCG@10 and hit rate as weighted means over the query groups with a positive."""
    groups = query_group_metrics(label, score, query_group_id)
    distinct, first = np.unique(query_group_id, return_index=True)
    owner = user[first[np.searchsorted(distinct, groups["query_group_id"].to_numpy())]]
    weights_RG = weights_RU[:, owner]
    total = weights_RG.sum(1)
    return {
        "ndcg_at_10": weights_RG @ groups["ndcg"].to_numpy() / total,
        "hit_rate_at_10": weights_RG @ groups["hit"].to_numpy() / total,
    }
