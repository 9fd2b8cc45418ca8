"""What the quality page calls methods and metrics, and how it writes a mean and a difference."""

from collections.abc import Mapping
from typing import Any

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
    "past_baskets": "past baskets (visits with what the coupon covers)",
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
SLICED = ("past_baskets", "trees", "tabular", "ours")


def spread(one: Mapping[str, Any]) -> str:
    """Mean ± deviation between seeds."""
    deviation = "" if one["deviation"] is None else f" ± {one['deviation']:.4f}"
    return f"{one['mean']:.4f}{deviation}"


def gap(one: Mapping[str, Any]) -> str:
    """A difference with its interval, bold where that leaves out 0."""
    low, high = one["interval"]
    text = f"{one['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
