"""How the quality page writes its figures: names, tables, spreads, intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMES = {
    "auc": "AUC",
    "average_precision": "AP",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "ndcg_at_10": "NDCG@10",
}
WAYS = {"any": "1 - ∏(1 - p)", "greatest": "greatest p", "fitted": "fitted on validation", "direct": "direct"}
LOWER_IS_BETTER = ("log_loss", "calibration_error")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def spread(one: Mapping[str, Any]) -> str:
    """Mean ± deviation between seeds."""
    deviation = "" if one["deviation"] is None else f" ± {one['deviation']:.4f}"
    return f"{one['mean']:.4f}{deviation}"


def interval(ends: Sequence[float]) -> str:
    """Both ends in brackets."""
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def gap(one: Mapping[str, Any]) -> str:
    """A difference with its interval, bold where that leaves out 0."""
    low, high = one["interval"]
    words = f"{one['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"**{words}**" if low > 0 or high < 0 else words


def plain(figures: Mapping[str, Any], predictor: str, figure: str) -> str:
    """A scorer's figure, or a dash where it has none."""
    return f"{figures[predictor][figure]:.4f}" if predictor in figures else "-"
