"""Pictures of training and of the test part, as PNG bytes. Matplotlib is imported when one is drawn."""

import importlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from expectations.errors import SettingError
from training.evaluation.curves import DECILES

NAMES = {
    "model": "model",
    "zero_shot": "zero-shot language model",
    "lightgbm": "LightGBM",
    "popularity": "popularity",
    "champion": "champion",
}


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
        (line,) = upper.plot(epochs, [entry["train_loss"] for entry in entries], marker="o", label=phase)
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
    """Predicted against observed positive rates, 20 bins of equal numbers of rows, logarithmic axes."""
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
