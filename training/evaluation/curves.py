"""Curves of the test part as short lists of numbers: what plots are drawn from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.evaluation.metrics import BINS, calibration_bins

POINTS, DECILES = 101, 10


def curves(label: np.ndarray, probability: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """ROC, calibration and lift of every scorer.

    Args:
        label: (rows,) 0 or 1.
        probability: scorer's name -> (rows,).

    Returns:
        Scorer's name -> {"roc": {"false_positive_rate", "true_positive_rate"}, "calibration": {"predicted",
        "observed"} by 20 bins of equal numbers of rows, "lift": positive rate of each tenth of the rows, the
        most probable first, over the rate of all}.
    """
    return {name: _curves(label, values) for name, values in probability.items()}


def _curves(label: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    hits = label[np.argsort(-probability, kind="stable")].astype(np.float64)
    positives, negatives = max(hits.sum(), 1), max(len(hits) - hits.sum(), 1)
    true_rate = np.r_[0, hits.cumsum()] / positives
    false_rate = np.r_[0, (1 - hits).cumsum()] / negatives
    grid = np.linspace(0, 1, POINTS)
    bin_of = calibration_bins(probability)
    sizes = np.maximum(np.bincount(bin_of, minlength=BINS), 1)
    tenths = [float(tenth.mean()) if len(tenth) else 0.0 for tenth in np.array_split(hits, DECILES)]
    rate = max(float(hits.mean()), 1e-12)
    return {
        "roc": {
            "false_positive_rate": _rounded(grid),
            "true_positive_rate": _rounded(np.interp(grid, false_rate, true_rate)),
        },
        "calibration": {
            "predicted": _rounded(np.bincount(bin_of, weights=probability, minlength=BINS) / sizes),
            "observed": _rounded(np.bincount(bin_of, weights=label, minlength=BINS) / sizes),
        },
        "lift": _rounded(np.array(tenths) / rate),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
