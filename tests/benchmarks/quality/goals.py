"""What was aimed at, and what could be reached: sections of the quality page."""

from collections.abc import Iterable

from tests.benchmarks.harness import Facts, table
from tests.benchmarks.quality.titles import BASELINES, CEILINGS, LOWER_IS_BETTER, NAMES, WAYS, spread

COUPON_GOALS = {"auc": 0.930, "average_precision": 0.10, "ndcg_at_10": 0.55}
CAMPAIGN_GOALS = {"auc": 0.84, "average_precision": 0.50}
TEXT_GOAL = 0.05


def goals(facts: Facts) -> list[tuple[str, float, float]]:
    """What was aimed at: its name, the goal, and what ours came to."""
    ours = facts["metrics"]["ours"]
    gain = {known: of["tabular"]["auc"]["difference"] for known, of in facts["text_only"].items()}
    return [
        *((f"coupon level {NAMES[name]}", goal, ours[name]["mean"]) for name, goal in COUPON_GOALS.items()),
        *(
            (f"campaign level {NAMES[name]}, {WAYS[way]}", goal, facts["campaign"]["ours"][way][name]["mean"])
            for way in ("any", "fitted")
            if way in facts["campaign"]["ours"]
            for name, goal in CAMPAIGN_GOALS.items()
        ),
        ("AUC that the text model adds, no user-item features", TEXT_GOAL, gain["no_user_item"]),
        ("AUC that the text model adds, a coupon known by its text", TEXT_GOAL, gain["no_products"]),
    ]


def goals_section(facts: Facts) -> Iterable[str]:
    """Each goal and what ours came to."""
    yield "## Goals"
    yield table(
        ("goal", "at least", "ours", ""),
        (
            (name, f"{goal:.3f}", f"{value:.4f}", "reached" if value >= goal else f"{goal - value:.4f} short")
            for name, goal, value in goals(facts)
        ),
    )
    yield _ahead(facts)


def _ahead(facts: Facts) -> str:
    """Ours beside the best baseline of each metric, in a sentence."""
    said = []
    for metric, name in NAMES.items():
        sign = -1 if metric in LOWER_IS_BETTER else 1
        best = max(BASELINES, key=lambda one: sign * facts["metrics"][one][metric]["mean"])
        gain = sign * facts["paired"][best][metric]["difference"]
        word = "better" if gain > 0 else "worse"
        said.append(f"{name} {abs(gain):.4f} {word} than {BASELINES[best]}")
    return f"Ours beside the best baseline of each metric: {'; '.join(said)}."


def ceilings_section(facts: Facts) -> Iterable[str]:
    """What trees come to that know more than a shop can."""
    metrics, campaign = facts["metrics"], facts["campaign"]
    shown = ("auc", "average_precision", "ndcg_at_10")
    none, named, every, future = (metrics[name] for name in CEILINGS)
    yield "## What could be reached"
    yield (
        "LightGBM with the tuned settings and other features. The last row has seen the future and competes with "
        "nobody: it says what would be left to win if every purchase were known in advance. A household gets about "
        "16 of the 200 coupons of a large campaign, and the data do not say which."
    )
    yield table(
        ("LightGBM with", *(NAMES[name] for name in shown), "campaign AUC", "campaign AP"),
        (
            (
                title,
                *(spread(metrics[name][metric]) for metric in shown),
                *(spread(campaign[name]["any"][metric]) for metric in ("auc", "average_precision")),
            )
            for name, title in CEILINGS.items()
        ),
    )
    yield (
        f"With every purchase known: NDCG@10 {future['ndcg_at_10']['mean']:.3f}, where the goal is "
        f"{COUPON_GOALS['ndcg_at_10']:.2f}, and campaign AUC {campaign['trees_future']['any']['auc']['mean']:.3f}, "
        f"where it is {CAMPAIGN_GOALS['auc']:.2f}. Counts of what a coupon's text names give "
        f"{100 * (named['auc']['mean'] - none['auc']['mean']):+.1f} AUC points to these trees, all counts "
        f"{100 * (every['auc']['mean'] - none['auc']['mean']):+.1f}; the goal for the text model, in their place, is "
        f"{100 * TEXT_GOAL:+.0f}."
    )
