"""Curves of the test part as short lists of numbers, and pictures of them and of training, as PNG bytes.

Matplotlib is imported when a picture is drawn. ROC and calibration are computed here and not by scikit-learn: the
curve's bins are those of the calibration error, whatever the ties, and a part with one label has curves, too.
"""

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expectations.errors import SettingError
from training.evaluation.metrics import BINS, calibration_bins

POINTS, DECILES = 101, 10
NAMES = {
    "model": "model",
    "zero_shot": "zero-shot language model",
    "logistic_regression": "logistic regression",
    "lightgbm": "LightGBM",
    "popularity": "popularity",
    "champion": "champion",
}


def curves(label: np.ndarray, probability: Mapping[str, np.ndarray], weight: np.ndarray) -> dict[str, Any]:
    """ROC, calibration and lift of every scorer.

    Args:
        label: (rows,) 0 to 1.
        probability: scorer's name -> (rows,).
        weight: (rows,) how much each counts.

    Returns:
        Scorer's name -> {"roc": {"false_positive_rate", "true_positive_rate"}, "calibration": {"predicted",
        "observed"} by 20 bins of equal weight, "lift": positive rate of each tenth of the weight, the
        most probable first, over the rate of all}.
    """
    return {name: _curves(label, values, weight) for name, values in probability.items() if name in NAMES}


def _curves(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    order = np.argsort(-probability, kind="stable")
    weights = weight[order].astype(np.float64)
    hits = weights * label[order]
    positives, negatives = max(hits.sum(), 1e-12), max((weights - hits).sum(), 1e-12)
    true_rate = np.r_[0, hits.cumsum()] / positives
    false_rate = np.r_[0, (weights - hits).cumsum()] / negatives
    grid = np.linspace(0, 1, POINTS)
    bin_of = calibration_bins(probability, weight)

    def mean_by_bin(values: np.ndarray) -> np.ndarray:
        sizes = np.bincount(bin_of, weights=weight, minlength=BINS)
        return np.bincount(bin_of, weights=weight * values, minlength=BINS) / np.maximum(sizes, 1e-12)

    tenth = np.minimum((weights.cumsum() - weights) * DECILES / weights.sum(), DECILES - 1).astype(np.int64)
    sizes = np.bincount(tenth, weights=weights, minlength=DECILES)
    rates = np.bincount(tenth, weights=hits, minlength=DECILES) / np.maximum(sizes, 1e-12)
    return {
        "roc": {
            "false_positive_rate": _rounded(grid),
            "true_positive_rate": _rounded(np.interp(grid, false_rate, true_rate)),
        },
        "calibration": {
            "predicted": _rounded(mean_by_bin(probability)),
            "observed": _rounded(mean_by_bin(label)),
        },
        "lift": _rounded(rates / max(hits.sum() / weights.sum(), 1e-12)),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def loss_curves(history: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """Training loss and a metric of the validation part by epoch, one line for each phase.

    Args:
        history: `FitResult.history`.
        metric: drawn below the loss.
    """
    figure, (upper, lower) = _figure(2)
    for phase in dict.fromkeys(entry["phase"] for entry in history):
        entries = [entry for entry in history if entry["phase"] == phase]
        epochs = [entry["epoch"] for entry in entries]
        (line,) = upper.plot(
            epochs, [entry.get("train_loss", np.nan) for entry in entries], marker="o", label=phase
        )
        if metric in entries[0]:
            values = [entry[metric] for entry in entries]
            lower.plot(epochs, values, marker="o", label=phase, color=line.get_color())
    _label(upper, "Training loss", "epoch", "binary cross-entropy")
    _label(lower, f"Validation: {metric.replace('_', ' ')}", "epoch", metric.replace("_", " "))
    return _png(figure)


def roc(evaluation: Mapping[str, Any]) -> bytes:
    """ROC curves of all scorers on the test part."""
    figure, (axes,) = _figure(1)
    for name, curves in evaluation["curves"].items():
        rates, area = curves["roc"], evaluation[name]["auc"]
        label = NAMES[name] if area is None else f"{NAMES[name]} (AUC {area:.3f})"
        axes.plot(rates["false_positive_rate"], rates["true_positive_rate"], label=label)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    _label(axes, "ROC, test part", "false positive rate", "true positive rate")
    return _png(figure)


def calibration(evaluation: Mapping[str, Any]) -> bytes:
    """Predicted against observed positive rates, 20 bins of equal weight, logarithmic axes."""
    figure, (axes,) = _figure(1)
    highest, least = 1e-3, 1 / max(evaluation["model"]["num_exposures"], 1)
    for name in ("model", "lightgbm"):
        curves = evaluation["curves"].get(name)
        if curves is None:
            continue
        predicted = [max(value, least) for value in curves["calibration"]["predicted"]]
        observed = [max(value, least) for value in curves["calibration"]["observed"]]
        axes.loglog(predicted, observed, marker="o", label=NAMES[name])
        highest = max(highest, *predicted, *observed)
    axes.plot([least, highest], [least, highest], linestyle=":", color="grey", label="calibrated")
    _label(axes, "Calibration, test part", "predicted positive rate", "observed positive rate")
    return _png(figure)


def lift(evaluation: Mapping[str, Any]) -> bytes:
    """Positive rate of each tenth of the test rows, the most probable first, over the rate of all."""
    figure, (axes,) = _figure(1)
    shown = [name for name in ("model", "lightgbm", "popularity") if name in evaluation["curves"]]
    width = 0.8 / len(shown)
    for index, name in enumerate(shown):
        places = [tenth + 1 + (index - (len(shown) - 1) / 2) * width for tenth in range(DECILES)]
        axes.bar(places, evaluation["curves"][name]["lift"], width=width, label=NAMES[name])
    axes.axhline(1, linestyle=":", color="grey")
    axes.set_xticks(range(1, DECILES + 1))
    _label(axes, "Lift by decile, test part", "tenth of the rows, most probable first", "times the mean")
    return _png(figure)


def _figure(rows: int) -> tuple[Any, Sequence[Any]]:
    try:
        module = importlib.import_module("matplotlib.figure")
        backend = importlib.import_module("matplotlib.backends.backend_agg")
    except ImportError as error:
        raise SettingError(f"plots need matplotlib ({error}); pip install matplotlib") from error
    figure = module.Figure(figsize=(6.4, 4.8 * rows), dpi=110, layout="constrained")
    backend.FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
