"""Window aggregations strictly before each entity row's event_timestamp, for many rows at once.

The instants at which something is asked are an entity's cuts: those of its entity rows, and for a window of w days
those w days before. Each fact counts towards the first cut after it; running totals of the cuts are everything
strictly before each, and a window's total is the difference of two. Facts are read once, sorted, and summed into as
many groups as there are cuts: n log n in facts plus entity rows, however many rows an entity has.

What happens at the instant itself is never in its total: it is not known before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

EVENT_TIMESTAMP = "event_timestamp"


@dataclass(frozen=True, kw_only=True)
class WindowAggregation:
    """One aggregation over a window.

    Attributes:
        name: the column it makes.
        column: the facts' column it totals; None counts the facts.
        how: "sum", or "last" for the latest instant at which the column was not null and not zero.
        days: only facts of that many days before count; None: all.
    """

    name: str
    column: str | None = None
    how: Literal["sum", "last"] = "sum"
    days: int | None = None


def aggregate_before(
    facts: IbisTable,
    entity_rows: IbisTable,
    *,
    by: str,
    aggregations: Sequence[WindowAggregation],
) -> IbisTable:
    """Each aggregation over the facts strictly before each entity row's event_timestamp.

    Args:
        facts: columns `by`, `event_timestamp` and those that the aggregations name.
        entity_rows: columns `by` and `event_timestamp`; one row each.
        by: the entity's column.
        aggregations: what to total; sums are float64, 0 where there is no fact; "last" is a timestamp,
            null where there is none.

    Returns:
        The entity rows, with one column per aggregation.
    """
    lengths = sorted({aggregation.days for aggregation in aggregations if aggregation.days is not None})
    cuts = entity_rows.select(
        by, row_at=_[EVENT_TIMESTAMP].cast("timestamp"), days=ibis.array([0, *lengths]).unnest()
    ).select(by, "row_at", "days", at=_.row_at - _.days.as_interval("D"))
    instants = cuts.select(by, "at").distinct()
    named = facts.select(
        **{by: _[by], "happened": _[EVENT_TIMESTAMP].cast("timestamp")},
        **{m.name: _contribution(m) for m in aggregations},
    )
    totals = {m.name: _[m.name].max() if m.how == "last" else _[m.name].sum() for m in aggregations}
    between = (
        named.asof_join(instants, on=named.happened < instants.at, predicates=by)
        .filter(_.at.notnull())
        .group_by([by, "at"])
        .aggregate(**totals)
        .select(by, "at", *totals, row_at=ibis.null("timestamp"), days=ibis.null("int64"))
    )
    nothing = {m.name: ibis.null("timestamp") if m.how == "last" else ibis.literal(0.0) for m in aggregations}
    asked = cuts.select(by, "at", **nothing, row_at=_.row_at, days=_.days.cast("int64"))
    until = ibis.window(group_by=by, order_by="at", range=(None, 0))
    running = {name: total.over(until) for name, total in totals.items()}
    return (
        ibis.union(between, asked, distinct=False)
        .mutate(**running)
        .filter(_.row_at.notnull())
        .group_by([by, "row_at"])
        .aggregate(**{m.name: _within_window(m) for m in aggregations})
        .rename({EVENT_TIMESTAMP: "row_at"})
    )


def _contribution(aggregation: WindowAggregation) -> ibis.Value:
    """What one fact adds."""
    value = ibis.literal(1.0) if aggregation.column is None else _[aggregation.column].cast("float64")
    if aggregation.how == "last":
        happened = value.coalesce(0.0) != 0
        return ibis.cases((happened, _[EVENT_TIMESTAMP].cast("timestamp")), else_=ibis.null("timestamp"))
    return value.coalesce(0.0)


def _within_window(aggregation: WindowAggregation) -> ibis.Value:
    """The total at an entity row less that at the start of the window, of rows of one total for each cut."""
    total = _[aggregation.name]
    found = total.max(where=_.days == 0)
    if aggregation.how == "last":
        return found
    if aggregation.days is not None:
        found = found - total.max(where=_.days == aggregation.days)
    return found.round(6)
