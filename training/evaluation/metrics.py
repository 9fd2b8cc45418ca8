"""Metrics of ranking and of probability, over all rows at once.

Rows are given as arrays of equal length: `label` (0 to 1), `score` or `probability`, `query_group_id`, which says
which rows are ranked together, and `weight`. A row counts as `weight · label` positives and `weight · (1 - label)`
negatives; without weights each row counts once. Where a metric is not defined (one class is missing), it is None.

A query group whose labels are all the same cannot be told from any other order, nor a hit in one with fewer than ten
rows without a positive missed: such groups do not count, and of fewer than MIN_QUERY_GROUPS that do, nothing is said.

By hand, as scikit-learn knows only labels 0 and 1, and with those equal to it: AUC, average precision and log loss.
NDCG@10, as `sklearn.metrics.ndcg_score` takes one query group at a time, 3,491 of them some fifty times as long; hit
rate, as SciPy's `hypergeom` takes 2.6 times as long as the logarithms of binomials.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaln

LOWER_IS_BETTER = ("log_loss",)
TOP = 10
BINS = 20
MIN_QUERY_GROUPS = 20


class Ties(NamedTuple):
    """Weight of the positives and negatives of each distinct score, the highest first, and of those above it."""

    positive: np.ndarray
    negative: np.ndarray
    positive_above: np.ndarray
    negative_above: np.ndarray


def metrics_of_logits(
    label: np.ndarray, logit: np.ndarray, query_group_id: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float | None]:
    """The metrics of `metrics_of_probabilities`, from logits."""
    probability = 1 / (1 + np.exp(-np.clip(logit.astype(np.float64), -50, 50)))
    return metrics_of_probabilities(label, probability, query_group_id, weight)


def metrics_of_probabilities(
    label: np.ndarray, probability: np.ndarray, query_group_id: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float | None]:
    """All metrics of this file but coverage."""
    groups = query_group_metrics(label, probability, query_group_id)
    return {
        "auc": auc(label, probability, weight),
        "average_precision": average_precision(label, probability, weight),
        "log_loss": log_loss(label, probability, weight),
        "calibration_error": calibration_error(label, probability, weight),
        "ndcg_at_10": mean_of_groups(groups["ndcg"]),
        "hit_rate_at_10": mean_of_groups(groups["hit"]),
    }


def auc(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """P(score of a positive > score of a negative) + ½ P(equal); None without both classes."""
    ties = tied(label, score, weight)
    positives, negatives = ties.positive.sum(), ties.negative.sum()
    if not positives or not negatives:
        return None
    below = negatives - ties.negative_above - ties.negative / 2
    return float((ties.positive / positives * below / negatives).sum())


def average_precision(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Σ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores, falling; rows of equal score enter together."""
    ties = tied(label, score, weight)
    positives = ties.positive.sum()
    if not positives or not ties.negative.sum():
        return None
    found = ties.positive_above + ties.positive
    precision = found / (found + ties.negative_above + ties.negative)
    return float((ties.positive / positives * precision).sum())


def tied(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None) -> Ties:
    """The rows' `Ties`."""
    order = np.argsort(-score, kind="stable")
    ordered, labels, weights = score[order], label[order].astype(np.float64), weights_of(label, weight)[order]
    start = np.flatnonzero(np.r_[len(order) > 0, ordered[1:] != ordered[:-1]])
    if not len(start):
        return Ties(*(np.zeros(0) for _ in Ties._fields))
    positive, negative = (np.add.reduceat(weights * part, start) for part in (labels, 1 - labels))
    return Ties(positive, negative, positive.cumsum() - positive, negative.cumsum() - negative)


def log_loss(label: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Mean of -[y log p + (1 - y) log(1 - p)], natural logarithm; p is kept 1e-7 away from 0 and 1."""
    return float(np.average(losses(label, probability), weights=weight)) if len(label) else None


def losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Each row's part of `log_loss`."""
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return -(label * np.log(p) + (1 - label) * np.log1p(-p))


def calibration_error(
    label: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None
) -> float | None:
    """Expected calibration error: Σ (w_b / w) |mean p - mean y| over 20 bins of equal weight.

    Equal weight instead of equal widths (Nguyen & O'Connor 2015, section 4), as nearly all
    probabilities of rare positives lie below 0.05 and would share one bin.
    """
    if not len(label):
        return None
    weights = weights_of(label, weight)
    bin_of = calibration_bins(probability, weight)
    gap = np.bincount(bin_of, weights=weights * (probability.astype(np.float64) - label), minlength=BINS)
    return float(np.abs(gap).sum() / weights.sum())


def calibration_bins(probability: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """(rows,) number of each row's bin, 0 to 19, by the weight of those before it in the order of probabilities."""
    order = np.argsort(probability, kind="stable")
    weights = weights_of(probability, weight)[order]
    before = weights.cumsum() - weights
    bin_of = np.empty(len(order), dtype=np.int64)
    bin_of[order] = np.minimum(before * BINS / max(weights.sum(), 1e-12), BINS - 1)
    return bin_of


def query_group_metrics(label: np.ndarray, score: np.ndarray, query_group_id: np.ndarray) -> pd.DataFrame:
    """NDCG@10 and hit@10 of every query group whose labels differ.

    NDCG@10 = Σ_{i≤10} yᵢ / log₂(i + 1), divided by the same sum of the best order (Järvelin & Kekäläinen
    2002, section 2). Rows of equal score get the expectation over their random orders (McSherry & Najork
    2008, section 3): for NDCG each gains the mean label of its group, for a hit the hypergeometric chance
    that a positive (a label above 0) is drawn into the places left.

    Returns:
        Columns query_group_id, ndcg, hit (NaN where no order can miss); one row per query group.
    """
    frame = pd.DataFrame(
        {"query_group_id": query_group_id, "score": score, "label": label.astype(np.float64)}
    )
    labels = frame.groupby("query_group_id")["label"]
    frame = frame[labels.transform("min") < labels.transform("max")]
    by_score = frame.sort_values(["query_group_id", "score"], ascending=[True, False], kind="stable")
    by_label = frame.sort_values(["query_group_id", "label"], ascending=[True, False], kind="stable")
    for ranked in (by_score, by_label):
        ranked["place"] = ranked.groupby("query_group_id").cumcount()
        ranked["discount"] = np.where(ranked["place"] < TOP, 1 / np.log2(ranked["place"] + 2), 0.0)
    by_score["positive"] = by_score["label"] > 0
    ties_of = by_score.groupby(["query_group_id", "score"], sort=False)
    by_score["gain"] = ties_of["label"].transform("mean") * by_score["discount"]
    by_label["gain"] = by_label["label"] * by_label["discount"]
    gain, best = (ranked.groupby("query_group_id")["gain"].sum() for ranked in (by_score, by_label))
    ties = ties_of.agg(
        start=("place", "min"), size=("place", "size"), positives=("positive", "sum")
    ).reset_index()
    ties["miss"] = _log_chance_of_miss(ties)
    of_group = ties.groupby("query_group_id")[["miss", "size", "positives"]].sum()
    can_miss = of_group["size"] - of_group["positives"] >= TOP
    hit = (1 - np.exp(of_group["miss"])).where(can_miss)
    return pd.DataFrame(
        {"query_group_id": gain.index, "ndcg": gain.to_numpy() / best.to_numpy(), "hit": hit.to_numpy()}
    )


def mean_of_groups(of_groups: pd.Series) -> float | None:
    """Mean over the query groups that have the metric; None of fewer than MIN_QUERY_GROUPS."""
    known = of_groups.dropna()
    return float(known.mean()) if len(known) >= MIN_QUERY_GROUPS else None


def _log_chance_of_miss(ties: pd.DataFrame) -> np.ndarray:
    """Logarithm of P(no positive of the tie group is among the first ten places)."""
    size, positives = ties["size"].to_numpy(float), ties["positives"].to_numpy(float)
    slots = np.clip(TOP - ties["start"].to_numpy(float), 0, size)
    possible = size - positives >= slots
    rest = np.where(possible, size - positives, size)
    chance = _log_choose(rest, slots) - _log_choose(size, slots)
    return np.where(possible, chance, -np.inf)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def coverage(
    item_id: np.ndarray, score: np.ndarray, query_group_id: np.ndarray, *, seed: int
) -> float | None:
    """Fraction of all items of the rows that are among the first ten of at least one query group.

    Equal scores are ordered by a seeded shuffle.
    """
    if not len(item_id):
        return None
    codes, items = pd.factorize(item_id)
    shuffle = np.random.default_rng(seed).permutation(len(codes))
    order = np.lexsort((shuffle, -score, query_group_id))
    sorted_groups = query_group_id[order]
    start = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    place = np.arange(len(order)) - np.repeat(start, np.diff(np.r_[start, len(order)]))
    return float(len(np.unique(codes[order][place < TOP])) / len(items))


def weights_of(rows: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """(rows,) float64: the weights, or one each."""
    return np.ones(len(rows)) if weight is None else weight.astype(np.float64)
