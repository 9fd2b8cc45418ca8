"""The page of the benchmark of warm starts."""

from collections.abc import Iterable
from datetime import datetime

from tests.benchmarks.harness import QUICK_SAYS, Facts, described, markdown, table

ARRIVALS = (  # the champion's border, and that of the retraining
    (datetime(2017, 5, 31), datetime(2017, 8, 8)),
    (datetime(2017, 9, 1), datetime(2017, 10, 30)),
)
METRICS = ("auc", "average_precision", "log_loss", "calibration_error", "ndcg_at_10")
KINDS = CHAMPION, SCRATCH, WARM = "champion", "scratch", "warm"


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(facts, _head, _arrivals, _differences)


def _head(facts: Facts) -> Iterable[str]:
    yield "# Retraining from the champion, beside retraining from scratch"
    if facts.get("quick"):
        yield QUICK_SAYS
    yield (
        f"`make bench-warm-start`, {described(facts['machine'])}. Complete Journey, coupon level; means over "
        f"seeds {', '.join(map(str, facts['seeds']))}."
    )
    yield (
        "The examples' `test_from` is moved through time. At a first border a champion is trained from scratch. At a "
        "later border more campaigns have become known, and the retraining is done twice on the same rows: from "
        "scratch, and from the champion. Both are measured on all rows from the later border on, which neither has "
        "seen."
    )


def _arrivals(facts: Facts) -> Iterable[str]:
    for arrival in facts["arrivals"]:
        rows = arrival["rows"]
        yield f"## Campaigns from {arrival['from']} on became known; measured from {arrival['until']} on"
        yield (
            ", ".join(
                f"{rows[name]['rows']:,} rows {what} ({rows[name]['positive']} positives)"
                for name, what in (("known", "known before"), ("new", "new"), ("test", "to measure on"))
            )
            + "."
        )
        yield table(
            (
                "",
                "the champion itself",
                "from scratch",
                "from the champion",
                "difference, 95 % (users drawn)",
                "seeds",
            ),
            (*(_metric(arrival, name) for name in METRICS), *_cost(arrival["cost"])),
        )


def _metric(arrival: Facts, name: str) -> tuple[str, ...]:
    difference, spread = arrival["warm_minus_scratch"][name], arrival["spread"][name]
    low, high = difference["interval"]
    return (
        name.replace("_", " "),
        *(f"{arrival['metrics'][kind][name]:.4f}" for kind in KINDS),
        f"{difference['difference']:+.4f} [{low:+.4f}, {high:+.4f}]",
        "" if spread is None else f"{spread:.4f}",
    )


def _cost(cost: Facts) -> Iterable[tuple[str, ...]]:
    for name, unit in (("steps", "steps"), ("cpu_seconds", "processor seconds"), ("seconds", "seconds")):
        scratch, warm = cost[SCRATCH][name], cost[WARM][name]
        yield unit, "", f"{scratch:,.0f}", f"{warm:,.0f}", f"{warm / scratch:.0%}", ""


def _differences(facts: Facts) -> Iterable[str]:
    """What the tables say, in sentences that hold whatever the results are."""
    for arrival in facts["arrivals"]:
        differing = [
            name.replace("_", " ")
            for name, values in arrival["warm_minus_scratch"].items()
            if not values["interval"][0] <= 0 <= values["interval"][1]
        ]
        steps, processor = (
            arrival["cost"][WARM][name] / arrival["cost"][SCRATCH][name] for name in ("steps", "cpu_seconds")
        )
        beyond = (
            f"beyond noise differ: {', '.join(differing)}" if differing else "no metric differs beyond noise"
        )
        yield (
            f"Campaigns until {arrival['until']}: {steps:.0%} of the steps and {processor:.0%} of the processor time; "
            f"{beyond}."
        )
