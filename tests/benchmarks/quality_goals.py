"""What was aimed at, and what could be reached: sections of the page of `make bench-quality`."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.benchmarks.quality_tables import LOWER_IS_BETTER, NAMES, WAYS, spread, table

COUPON_GOALS = {"auc": 0.930, "average_precision": 0.10, "ndcg_at_10": 0.55}
CAMPAIGN_GOALS = {"auc": 0.84, "average_precision": 0.50}
TEXT_GOAL = 0.05


def goals(facts: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """What was aimed at: its name, the goal, and what ours came to."""
    ours = facts["figures"]["ours"]
    words = {known: of["past"]["auc"]["difference"] for known, of in facts["text_only"].items()}
    return [
        *((f"coupon level {NAMES[name]}", goal, ours[name]["mean"]) for name, goal in COUPON_GOALS.items()),
        *(
            (f"campaign level {NAMES[name]}, {WAYS[way]}", goal, facts["campaign"]["ours"][way][name]["mean"])
            for way in ("any", "fitted")
            if way in facts["campaign"]["ours"]
            for name, goal in CAMPAIGN_GOALS.items()
        ),
        ("AUC that the words add, no cross counts", TEXT_GOAL, words["uncrossed"]),
        ("AUC that the words add, a coupon known by its words", TEXT_GOAL, words["told"]),
    ]


def goals_section(facts: Mapping[str, Any]) -> Iterable[str]:
    """Each goal and what ours came to."""
    yield "## Goals"
    yield ""
    yield from table(
        ("goal", "at least", "ours", ""),
        (
            (name, f"{goal:.3f}", f"{value:.4f}", "reached" if value >= goal else f"{goal - value:.4f} short")
            for name, goal, value in goals(facts)
        ),
    )
    yield ""
    yield _ahead(facts)


def _ahead(facts: Mapping[str, Any]) -> str:
    """Ours beside the best tabular method of each figure, in a sentence."""
    said = []
    for figure, name in NAMES.items():
        sign = -1 if figure in LOWER_IS_BETTER else 1
        best = max(facts["tabular"], key=lambda one: sign * facts["figures"][one][figure]["mean"])
        gain = sign * facts["paired"][best][figure]["difference"]
        word = "better" if gain > 0 else "worse"
        said.append(f"{name} {abs(gain):.4f} {word} than {facts['titles'][best]}")
    return f"Ours beside the best tabular method of each figure: {'; '.join(said)}."


def ceilings_section(facts: Mapping[str, Any]) -> Iterable[str]:
    """What trees come to that know more than a shop can."""
    figures, campaign = facts["figures"], facts["campaign"]
    shown = ("auc", "average_precision", "ndcg_at_10")
    future, every, named, none = (figures[f"trees{name}"] for name in ("_future", "", "_named", "_uncrossed"))
    yield "## What could be reached"
    yield ""
    yield (
        "LightGBM with the tuned settings and other features. The last row has seen the future and competes with "
        "nobody: it says what would be left to win if every purchase were known in advance. A household gets about "
        "16 of the 200 coupons of a large campaign, and the data do not say which."
    )
    yield ""
    yield from table(
        ("LightGBM with", *(NAMES[name] for name in shown), "campaign AUC", "campaign AP"),
        (
            (
                title,
                *(spread(figures[name][figure]) for figure in shown),
                *(spread(campaign[name]["any"][figure]) for figure in ("auc", "average_precision")),
            )
            for name, title in facts["ceilings"].items()
        ),
    )
    yield ""
    yield (
        f"With every purchase known: NDCG@10 {future['ndcg_at_10']['mean']:.3f}, where the goal is "
        f"{COUPON_GOALS['ndcg_at_10']:.2f}, and campaign AUC {campaign['trees_future']['any']['auc']['mean']:.3f}, "
        f"where it is {CAMPAIGN_GOALS['auc']:.2f}. Counts of what a coupon's text names give "
        f"{100 * (named['auc']['mean'] - none['auc']['mean']):+.1f} AUC points to these trees, all counts "
        f"{100 * (every['auc']['mean'] - none['auc']['mean']):+.1f}; the goal for the words, in their place, is "
        f"{100 * TEXT_GOAL:+.0f}."
    )
