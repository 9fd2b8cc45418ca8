"""Totals up to a moment and strictly before it, for many moments at once.

Facts and moments are laid on one line per entity, rows of one instant are merged, and a running
total over all earlier rows is read off at the moments. A window of w days is had by letting each
fact come back with its sign turned w days later. The cost is one sort: n log n in facts plus
moments, however many moments an entity has.

The row of the moment itself is never in its own total: what happens at an instant is not known
before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

EVENT_TIMESTAMP = "event_timestamp"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One total to keep.

    Attributes:
        name: the column it makes.
        column: the facts' column it totals; None counts the facts.
        how: "sum", or "last" for the latest instant at which the column was not null and not zero.
        days: only facts of that many days before the moment count; None: all.
    """

    name: str
    column: str | None = None
    how: Literal["sum", "last"] = "sum"
    days: int | None = None


def totals_before(
    facts: IbisTable,
    moments: IbisTable,
    *,
    by: str,
    measures: Sequence[Measure],
) -> IbisTable:
    """Each measure's total over the facts strictly before each moment.

    Args:
        facts: columns `by`, `event_timestamp` and those that the measures name.
        moments: columns `by` and `event_timestamp`; one row a moment.
        by: the entity's column.
        measures: what to total; sums are float64, 0 where there is no fact; "last" is a timestamp,
            null where there is none.

    Returns:
        One row per moment: `by`, `event_timestamp`, one column per measure.
    """
    line = _merge(_lay_out(facts, moments, by, measures), by, measures)
    before = ibis.window(group_by=by, order_by=EVENT_TIMESTAMP, preceding=(None, 1))
    running = {
        measure.name: (
            _[measure.name].max().over(before)
            if measure.how == "last"
            else _[measure.name].sum().over(before).coalesce(0.0)
        )
        for measure in measures
    }
    found = line.mutate(**running).filter(_.is_moment == 1).drop("is_moment")
    return found.mutate(**{m.name: _[m.name].round(6) for m in measures if m.how == "sum"})


def _lay_out(facts: IbisTable, moments: IbisTable, by: str, measures: Sequence[Measure]) -> IbisTable:
    """Facts, their expiries and the moments, one under the other with the same columns."""
    layers = [_layer(facts, by, measures, when=_[EVENT_TIMESTAMP], sign=1.0, days=None)]
    for days in sorted({measure.days for measure in measures if measure.days is not None}):
        when = _[EVENT_TIMESTAMP] + ibis.interval(days=days)
        layers.append(_layer(facts, by, measures, when=when, sign=-1.0, days=days))
    nothing = {m.name: ibis.null("timestamp") if m.how == "last" else ibis.literal(0.0) for m in measures}
    layers.append(
        moments.select(
            **{by: _[by], EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].cast("timestamp"), **nothing},
            is_moment=ibis.literal(1, "int8"),
        )
    )
    return ibis.union(*layers, distinct=False)


def _layer(
    facts: IbisTable, by: str, measures: Sequence[Measure], *, when: Any, sign: float, days: int | None
) -> IbisTable:
    """The facts themselves (days None, sign 1), or the expiries of one window (sign -1)."""
    columns = {}
    for measure in measures:
        counts = days is None or measure.days == days
        value = ibis.literal(1.0) if measure.column is None else _[measure.column].cast("float64")
        if measure.how == "last":
            happened = value.coalesce(0.0) != 0
            columns[measure.name] = (
                ibis.cases((happened, _[EVENT_TIMESTAMP].cast("timestamp")), else_=ibis.null("timestamp"))
                if days is None
                else ibis.null("timestamp")
            )
        else:
            columns[measure.name] = value.coalesce(0.0) * sign if counts else ibis.literal(0.0)
    return facts.select(
        **{by: _[by], EVENT_TIMESTAMP: when.cast("timestamp"), **columns}, is_moment=ibis.literal(0, "int8")
    )


def _merge(line: IbisTable, by: str, measures: Sequence[Measure]) -> IbisTable:
    """One row per entity and instant, so that the rows before a moment are strictly before it."""
    merged = {m.name: _[m.name].max() if m.how == "last" else _[m.name].sum() for m in measures}
    return line.group_by([by, EVENT_TIMESTAMP]).aggregate(**merged, is_moment=_.is_moment.max())
