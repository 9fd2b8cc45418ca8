"""Platt scaling (Platt 1999): p = σ(slope · logit + intercept) is calibrated.

By hand, as scikit-learn's logistic regression neither keeps the slope above 0 nor shrinks it to 1.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

MIN_SLOPE = 1e-3


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Slope (above 0) and intercept that minimise the log loss.

    The logarithm of the slope is drawn weakly to 0, so that few rows or a perfect separation keep it finite.

    Args:
        logits: (rows,) finite numbers.
        labels: (rows,) 0 to 1, not all the same.
        weights: (rows,) how much each counts; None: all the same.
    """
    x, y = logits.astype(np.float64), labels.astype(np.float64)
    w = np.ones(len(x)) if weights is None else weights.astype(np.float64)
    w = w / w.sum()
    penalty = 1.0 / len(x)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(parameters[0])
        z = slope * x + parameters[1]
        error = w * (expit(z) - y)
        value = float(w @ (np.logaddexp(0, z) - y * z) + penalty * parameters[0] ** 2)
        return value, np.array([(error * x).sum() * slope + 2 * penalty * parameters[0], error.sum()])

    rate = np.clip(w @ y, 1e-6, 1 - 1e-6)
    start = np.array([0.0, np.log(rate / (1 - rate)) - w @ x])
    best = min(
        (minimize(loss, s, jac=True, method="BFGS") for s in (start, np.zeros(2))), key=lambda r: r.fun
    )
    return max(float(np.exp(best.x[0])), MIN_SLOPE), float(best.x[1])
