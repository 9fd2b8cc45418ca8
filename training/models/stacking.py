"""Stacking: how much each part of the logit counts, by its labels on rows that no part was fitted on.

A non-negative logistic regression of the parts (Wolpert 1992, "Stacked generalization"; Breiman 1996, "Stacked
regressions", for why non-negative). A part that adds less than `MIN_GAIN` to the log-likelihood of the others adds
nothing beyond noise (Akaike 1974) and gets scale 0. Rows of many impressions each differ by more than independent draws
would, so that much more is asked of a part there (White 1982). The last part stays if it adds anything at all: of a few
rows none can show so much, and then what was learned elsewhere says more than a constant. Few positives do not tell a
scale either: each has the prior N(1, 1), as each part was learned to be a logit.

By hand: scikit-learn's regression has no bounds. Shapes: N rows, K parts.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

MIN_GAIN = 2.0  # in log-likelihood, that a part must add to others
MIN_EXPECTED, MIN_COUNTED = 5.0, 20  # outcomes of a row, and such rows, by which dispersion is measured
MAX_SCALE = 3.0  # what must be stretched further is noise, and its refit is other noise, stretched alike


def fit_stacking(
    parts_NK: np.ndarray, labels_N: np.ndarray, weights_N: np.ndarray
) -> tuple[np.ndarray, float]:
    """Scale of each part, (K,), 0 to MAX_SCALE, and the intercept beside them.

    Args:
        parts_NK: logits of the parts.
        labels_N: 0 to 1.
        weights_N: how much each row counts, above 0.
    """
    mean_K = parts_NK.mean(axis=0, dtype=np.float64)
    centred_NK = parts_NK - mean_K
    active = [part for part in range(parts_NK.shape[1]) if np.ptp(centred_NK[:, part]) > 0]
    best, scales, intercept = _fit(centred_NK, labels_N, weights_N, active)
    min_gain = MIN_GAIN * dispersion(labels_N, weights_N, expit(centred_NK @ scales + intercept))
    while active:
        without = {
            part: _fit(centred_NK, labels_N, weights_N, [other for other in active if other != part])
            for part in active
        }
        part = min(without, key=lambda part: without[part][0])
        if without[part][0] > best + (min_gain if len(active) > 1 else 0.0):
            break
        best, scales, intercept = without[part]
        active.remove(part)
    return scales, intercept - float(scales @ mean_K)


def dispersion(labels_N: np.ndarray, weights_N: np.ndarray, probability_N: np.ndarray) -> float:
    """Variance of the positives of rows of many impressions beside that of independent draws, at least 1.

    Rows that expect too few of either outcome say nothing of it (Cochran 1954), and few rows too little: then 1.
    """
    variance_N = weights_N * probability_N * (1 - probability_N)
    counted = variance_N >= MIN_EXPECTED
    if counted.sum() < MIN_COUNTED:
        return 1.0
    error_N = weights_N * (labels_N - probability_N)
    return max(1.0, float((error_N[counted] ** 2).sum() / variance_N[counted].sum()))


def _fit(
    parts_NK: np.ndarray, labels_N: np.ndarray, weights_N: np.ndarray, active: Sequence[int]
) -> tuple[float, np.ndarray, float]:
    """Minus the log-likelihood of the likeliest scales of some parts, the others 0; the scales (K,); the intercept."""
    rate = np.clip(np.average(labels_N, weights=weights_N), 1e-6, 1 - 1e-6)
    chosen_NA = parts_NK[:, list(active)]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logit_N = chosen_NA @ parameters[:-1] + parameters[-1]
        error_N = weights_N * (expit(logit_N) - labels_N)
        value = float((weights_N * (np.logaddexp(0, logit_N) - labels_N * logit_N)).sum())
        return value, np.r_[error_N @ chosen_NA, error_N.sum()]

    def loss_with_prior(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(parameters)
        distance = parameters[:-1] - 1
        return value + float(distance @ distance) / 2, gradient + np.r_[distance, 0]

    start = np.r_[np.full(len(active), 1 / max(len(active), 1)), np.log(rate / (1 - rate))]
    bounds = [*[(0.0, MAX_SCALE)] * len(active), (None, None)]
    found = minimize(loss_with_prior, start, jac=True, method="L-BFGS-B", bounds=bounds)
    scales = np.zeros(parts_NK.shape[1])
    scales[list(active)] = found.x[:-1]
    return loss(found.x)[0], scales, float(found.x[-1])
