"""Intervals by resampling shoppers (Efron & Tibshirani 1993, chapter 8 and section 13.3).

A shopper's rows are alike, so shoppers are drawn, not rows. A draw is a weight for each shopper; every
figure is computed from weights, after one sort of the rows. The same draws are used for all scorers:
differences are paired.

Shapes: R draws, U shoppers, N rows.
"""

from collections.abc import Mapping

import numpy as np

from training.evaluation.metrics import BINS, calibration_bins, query_group_metrics

LEVEL = 0.95


def draw_weights(num_users: int, *, draws: int, seed: int) -> np.ndarray:
    """How often each shopper is drawn, (R, U) float32; each row sums to U."""
    rng = np.random.default_rng(seed)
    counts = [np.bincount(rng.integers(num_users, size=num_users), minlength=num_users) for _ in range(draws)]
    return np.stack(counts).astype(np.float32)


def resampled_figures(
    label: np.ndarray,
    probability: np.ndarray,
    query_group_id: np.ndarray,
    user: np.ndarray,
    weights_RU: np.ndarray,
) -> dict[str, np.ndarray]:
    """Every figure in every draw, (R,) each; NaN where a draw has one class only.

    Args:
        label: (N,) 0 or 1.
        probability: (N,) scores; their order ranks.
        query_group_id: (N,) ranked list of each row.
        user: (N,) shopper of each row, 0 to U - 1.
        weights_RU: what `draw_weights` drew.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            **_by_order(label, probability, user, weights_RU),
            **_by_user(label, probability, user, weights_RU),
            **_by_list(label, probability, query_group_id, user, weights_RU),
        }


def interval(values_R: np.ndarray) -> list[float] | None:
    """The middle 95 % of the draws in which the figure is defined; None where it is in none."""
    known = values_R[np.isfinite(values_R)]
    if not len(known):
        return None
    return [float(value) for value in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def paired(
    ours: Mapping[str, float | None],
    theirs: Mapping[str, float | None],
    our_draws: Mapping[str, np.ndarray],
    their_draws: Mapping[str, np.ndarray],
) -> dict[str, dict[str, object] | None]:
    """Difference of each figure, ours minus theirs, and its interval over the same draws."""
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
    """AUC and average precision from cumulated weights at the ends of groups of equal scores."""
    if not label.any():
        return dict.fromkeys(("auc", "average_precision"), np.full(len(weights_RU), np.nan))
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    # Only groups with an answer add to either figure.
    answers = np.flatnonzero(label[order] > 0)
    groups = np.unique(np.searchsorted(last, answers))
    ends = last[groups]
    before = np.where(groups > 0, last[groups - 1], -1)
    users, answer_users = user[order], user[order][answers]
    group_of_answer = np.searchsorted(ends, answers)
    auc, precision = np.empty(len(weights_RU)), np.empty(len(weights_RU))
    for draw, weights_U in enumerate(weights_RU):
        seen = np.r_[0.0, np.cumsum(weights_U[users], dtype=np.float64)]
        hits = np.bincount(group_of_answer, weights=weights_U[answer_users], minlength=len(ends))
        hits_to = hits.cumsum()
        num_hits = hits_to[-1]
        others_to, others_before = seen[ends + 1] - hits_to, seen[before + 1] - (hits_to - hits)
        num_others = seen[-1] - num_hits
        below = num_others - (others_to + others_before) / 2
        auc[draw] = (hits * below).sum() / (num_hits * num_others)
        share = hits_to / np.maximum(seen[ends + 1], 1)
        precision[draw] = (hits * share).sum() / num_hits
    return {"auc": auc, "average_precision": precision}


def _by_user(
    label: np.ndarray, probability: np.ndarray, user: np.ndarray, weights_RU: np.ndarray
) -> dict[str, np.ndarray]:
    """Log loss and calibration error from sums by shopper; the bins are those of all rows."""
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


def _by_list(
    label: np.ndarray,
    score: np.ndarray,
    query_group_id: np.ndarray,
    user: np.ndarray,
    weights_RU: np.ndarray,
) -> dict[str, np.ndarray]:
    """NDCG@10 and hit rate as weighted means over the lists with an answer."""
    lists = query_group_metrics(label, score, query_group_id)
    distinct, first = np.unique(query_group_id, return_index=True)
    owner = user[first[np.searchsorted(distinct, lists["query_group_id"].to_numpy())]]
    weights_RL = weights_RU[:, owner]
    total = weights_RL.sum(1)
    return {
        "ndcg_at_10": weights_RL @ lists["ndcg"].to_numpy() / total,
        "hit_rate_at_10": weights_RL @ lists["hit"].to_numpy() / total,
    }
