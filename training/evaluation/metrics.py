"""Metrics of ranking and of probability, over all rows at once.

Rows are given as arrays of equal length: `label` (0 or 1), `score` or `probability`, and `query_group_id`, which
says which rows are ranked together. Where a metric is not defined (one class is missing), it is None.

scikit-learn computes AUC and average precision. By hand, with equal results: NDCG@10 (`sklearn.metrics.ndcg_score`
takes one query group at a time, 3,491 of them some fifty times as long), hit rate (SciPy's `hypergeom` takes 2.6
times as long as the logarithms of binomials), log loss (scikit-learn's takes 6 times as long, and the scales of f's
parts are chosen by dozens of them).
"""

import numpy as np
import pandas as pd
from scipy.special import gammaln
from sklearn import metrics as sklearn_metrics

LOWER_IS_BETTER = ("log_loss",)
TOP = 10
BINS = 20


def metrics_of_logits(
    label: np.ndarray, logit: np.ndarray, query_group_id: np.ndarray
) -> dict[str, float | None]:
    """The metrics of `metrics_of_probabilities`, from logits."""
    probability = 1 / (1 + np.exp(-np.clip(logit.astype(np.float64), -50, 50)))
    return metrics_of_probabilities(label, probability, query_group_id)


def metrics_of_probabilities(
    label: np.ndarray, probability: np.ndarray, query_group_id: np.ndarray
) -> dict[str, float | None]:
    """All metrics of this file but coverage."""
    groups = query_group_metrics(label, probability, query_group_id)
    return {
        "auc": auc(label, probability),
        "average_precision": average_precision(label, probability),
        "log_loss": log_loss(label, probability),
        "calibration_error": calibration_error(label, probability),
        "ndcg_at_10": float(groups["ndcg"].mean()) if len(groups) else None,
        "hit_rate_at_10": float(groups["hit"].mean()) if len(groups) else None,
    }


def auc(label: np.ndarray, score: np.ndarray) -> float | None:
    """P(score of a positive > score of a negative) + ½ P(equal); None without both classes."""
    return float(sklearn_metrics.roc_auc_score(label, score)) if _both(label) else None


def average_precision(label: np.ndarray, score: np.ndarray) -> float | None:
    """Σ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores, falling; rows of equal score enter together."""
    return float(sklearn_metrics.average_precision_score(label, score)) if _both(label) else None


def log_loss(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Mean of -[y log p + (1 - y) log(1 - p)], natural logarithm; p is kept 1e-7 away from 0 and 1."""
    if not len(label):
        return None
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(label > 0, np.log(p), np.log1p(-p))))


def calibration_error(label: np.ndarray, probability: np.ndarray) -> float | None:
    """Expected calibration error: Σ (n_b / n) |mean p - mean y| over 20 bins of equal numbers of rows.

    Equal numbers instead of equal widths (Nguyen & O'Connor 2015, section 4), as nearly all
    probabilities of rare positives lie below 0.05 and would share one bin.
    """
    if not len(label):
        return None
    bin_of = calibration_bins(probability)
    gap = np.bincount(bin_of, weights=probability.astype(np.float64) - label, minlength=BINS)
    return float(np.abs(gap).sum() / len(label))


def calibration_bins(probability: np.ndarray) -> np.ndarray:
    """(rows,) number of each row's bin, 0 to 19, by its place in the order of probabilities."""
    place = np.empty(len(probability), dtype=np.int64)
    place[np.argsort(probability, kind="stable")] = np.arange(len(probability))
    return place * BINS // max(len(probability), 1)


def query_group_metrics(label: np.ndarray, score: np.ndarray, query_group_id: np.ndarray) -> pd.DataFrame:
    """NDCG@10 and hit@10 of every query group with at least one positive.

    NDCG@10 = Σ_{i≤10} yᵢ / log₂(i + 1), divided by the same sum of the best order (Järvelin & Kekäläinen
    2002, section 2). Rows of equal score get the expectation over their random orders (McSherry & Najork
    2008, section 3): for NDCG each gains the mean label of its group, for a hit the hypergeometric chance
    that a positive is drawn into the places left.

    Returns:
        Columns query_group_id, ndcg, hit; one row per query group.
    """
    included = np.isin(query_group_id, np.unique(query_group_id[label > 0]))
    order = np.lexsort((-score[included], query_group_id[included]))
    frame = pd.DataFrame(
        {
            "query_group_id": query_group_id[included][order],
            "score": score[included][order],
            "label": label[included][order],
        }
    )
    frame["place"] = frame.groupby("query_group_id").cumcount()
    tied = frame.groupby(["query_group_id", "score"], sort=False)
    frame["gain"] = tied["label"].transform("mean") / np.log2(frame["place"] + 2)
    ties = tied.agg(start=("place", "min"), size=("place", "size"), positives=("label", "sum")).reset_index()
    top = frame[frame["place"] < TOP].groupby("query_group_id")["gain"].sum()
    discounts = np.concatenate([[0.0], (1 / np.log2(np.arange(TOP) + 2)).cumsum()])
    num_positive = frame.groupby("query_group_id")["label"].sum()
    best = discounts[np.minimum(num_positive.to_numpy(np.int64), TOP)]
    ties["miss"] = _log_chance_of_miss(ties)
    hit = 1 - np.exp(ties.groupby("query_group_id")["miss"].sum())
    return pd.DataFrame({"query_group_id": top.index, "ndcg": top.to_numpy() / best, "hit": hit.to_numpy()})


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


def _both(label: np.ndarray) -> bool:
    return bool(len(label)) and bool(label.min() != label.max())
