"""What an exposure came to, as a number, and from when on that is known.

An exposure without a click may still be clicked tomorrow: its outcome is known when its scenario's outcome window has
passed. A window that the source does not declare is the 99th percentile of the delays of the scenario's timed
positives, which is a property of how the shop works and no secret of the future, as is the best grade.
"""

from collections.abc import Mapping

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.windows import EVENT_TIMESTAMP

DELAY_QUANTILE = 0.99


def resolve_outcomes(exposures: IbisTable, declared: Mapping[str, float]) -> IbisTable:
    """Exposures with their outcomes as numbers.

    Args:
        exposures: the contract's table.
        declared: days by scenario, and those of "default", as the source declares them; may be empty.

    Returns:
        The exposures with, as float64:
        weight: how many impressions the row stands for;
        label: between 0 and 1: whether the outcome is positive; of graded outcomes the gain (2^grade - 1) /
        (2^best - 1) of Burges et al. (2005); of aggregates clicks / impressions; null where it is unknown.
        And closes_at, a timestamp: the end of the outcome window, from which on the label is known.
    """
    best, days = _best_and_windows(exposures, declared)
    opened = _[EVENT_TIMESTAMP].cast("timestamp")
    closings = [(_.scenario == name, opened + _seconds(window)) for name, window in sorted(days.items())]
    fallback = opened + _seconds(declared.get("default", 0.0))
    gain = (ibis.literal(2.0) ** exposures.outcome.cast("float64") - 1.0) / (2.0**best - 1.0)
    click_rate = _.clicks.cast("float64") / _.impressions.cast("float64")
    return exposures.mutate(
        weight=_.impressions.cast("float64").fill_null(1.0),
        label=ibis.ifelse(_.impressions.notnull(), click_rate, gain),
        closes_at=ibis.cases(*closings, else_=fallback) if closings else fallback,
    )


def _best_and_windows(exposures: IbisTable, declared: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The best grade, at least 1, and the outcome window of each scenario, in days."""
    delay = _.outcome_timestamp.epoch_seconds() - _[EVENT_TIMESTAMP].epoch_seconds()
    found = (
        exposures.group_by("scenario")
        .aggregate(best=_.outcome.max(), delay=delay.quantile(DELAY_QUANTILE, where=_.outcome > 0))
        .execute()
        .set_index("scenario")
    )
    best = found["best"].max()
    windows = (found["delay"].fillna(0.0).clip(lower=0.0) / 86400.0).to_dict()
    if "default" in declared:
        windows = {}
    windows |= {scenario: days for scenario, days in declared.items() if scenario != "default"}
    return (float(best) if best > 1 else 1.0), {str(name): float(days) for name, days in windows.items()}


def _seconds(days: float) -> ibis.Value:
    return ibis.interval(seconds=round(days * 86400.0))
