"""What the quality page calls methods and metrics, and where ours is ahead and behind: `page.md.jinja` has the rest."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.benchmarks.harness import Facts, markdown

NAMES = {
    "auc": "AUC",
    "average_precision": "AP",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "ndcg_at_10": "NDCG@10",
}
LOWER_IS_BETTER = ("log_loss", "calibration_error")
WAYS = {"any": "1 - ∏(1 - p)", "greatest": "greatest p", "fitted": "fitted on validation", "direct": "direct"}
BASELINES = {
    "popularity": "popularity",
    "previous_baskets": "past baskets (visits with what the coupon covers)",
    "ease": "EASE (LensKit), household × product type",
    "trees": "LightGBM, tuned",
    "trees_ease": "LightGBM, tuned, with the EASE score",
}
TITLES = {
    **BASELINES,
    "tabular": "ours without the text model (g alone)",
    "frozen": "ours, language model frozen",
    "ours": "ours",
}
CEILINGS = {
    "trees_no_user_item": "no user-item feature",
    "trees_named": "… but those of the product types, categories and departments that the coupon's text names",
    "trees": "every feature",
    "trees_future": "… and what the household will buy of the coupon's products while it is valid",
}
SLICED = ("previous_baskets", "trees", "tabular", "ours")
BY_SLICE = [("auc", name) for name in SLICED] + [
    (metric, name) for metric in ("average_precision", "ndcg_at_10") for name in ("trees", "ours")
]


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(
        "quality",
        facts,
        names=NAMES,
        titles=TITLES,
        ways=WAYS,
        ceilings=CEILINGS,
        by_slice=BY_SLICE,
        spreads=spreads,
        gap=gap,
        ahead=[_ahead(facts, metric) for metric in NAMES],
        behind=list(_behind(facts)),
    )


def spreads(found: Mapping[str, Any] | None, metrics: Iterable[str] = tuple(NAMES)) -> list[str]:
    """Mean ± deviation between seeds of each metric; a dash where nothing was measured."""
    return [_spread(found[metric]) if found else "-" for metric in metrics]


def _spread(one: Mapping[str, Any]) -> str:
    deviation = "" if one["deviation"] is None else f" ± {one['deviation']:.4f}"
    return f"{one['mean']:.4f}{deviation}"


def gap(one: Mapping[str, Any]) -> str:
    """A difference with its interval, bold where that leaves out 0."""
    if one["interval"] is None:
        return "not measured"
    low, high = one["interval"]
    text = f"{one['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _sign(metric: str) -> int:
    return -1 if metric in LOWER_IS_BETTER else 1


def _ahead(facts: Facts, metric: str) -> str:
    """Ours beside the best baseline of a metric."""
    best = max(BASELINES, key=lambda one: _sign(metric) * facts["metrics"][one][metric]["mean"])
    gain = _sign(metric) * facts["paired"][best][metric]["difference"]
    return f"{NAMES[metric]} {abs(gain):.4f} {'better' if gain > 0 else 'worse'} than {BASELINES[best]}"


def _behind(facts: Facts) -> Iterable[str]:
    """Where ours is behind, and whether that may be chance."""
    for name, found in facts["paired"].items():
        for metric, one in found.items():
            if _sign(metric) * one["difference"] < 0:
                sure = "" if max(_sign(metric) * end for end in one["interval"]) < 0 else " (may be chance)"
                yield f"{NAMES[metric]} against {TITLES[name]}{sure}"
