"""Window aggregations strictly before each entity row's event_timestamp, for many rows at once.

Facts and entity rows are laid on one timeline per entity, rows of one instant are merged, and a running
total over all earlier rows is read off at the entity rows. A window of w days is had by letting each
fact come back with its sign turned w days later. The cost is one sort: n log n in facts plus entity
rows, however many rows an entity has.

What happens at the instant itself is never in its total: it is not known before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
    # One row per entity and instant, so that the rows before an entity row are strictly before it.
    merged = {m.name: _[m.name].max() if m.how == "last" else _[m.name].sum() for m in aggregations}
    timeline = (
        _stack(facts, entity_rows, by, aggregations)
        .group_by([by, EVENT_TIMESTAMP])
        .aggregate(**merged, is_entity_row=_.is_entity_row.max())
    )
    before = ibis.window(group_by=by, order_by=EVENT_TIMESTAMP, preceding=(None, 1))
    running = {
        m.name: _[m.name].max().over(before)
        if m.how == "last"
        else _[m.name].sum().over(before).coalesce(0.0).round(6)
        for m in aggregations
    }
    return timeline.mutate(**running).filter(_.is_entity_row == 1).drop("is_entity_row")


def _stack(
    facts: IbisTable, entity_rows: IbisTable, by: str, aggregations: Sequence[WindowAggregation]
) -> IbisTable:
    """Facts, their expiries and the entity rows, one under the other with the same columns."""
    layers = [_layer(facts, by, aggregations, when=_[EVENT_TIMESTAMP], sign=1.0, days=None)]
    for days in sorted({aggregation.days for aggregation in aggregations if aggregation.days is not None}):
        when = _[EVENT_TIMESTAMP] + ibis.interval(days=days)
        layers.append(_layer(facts, by, aggregations, when=when, sign=-1.0, days=days))
    nothing = {m.name: ibis.null("timestamp") if m.how == "last" else ibis.literal(0.0) for m in aggregations}
    layers.append(
        entity_rows.select(
            **{by: _[by], EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].cast("timestamp"), **nothing},
            is_entity_row=ibis.literal(1, "int8"),
        )
    )
    return ibis.union(*layers, distinct=False)


def _layer(
    facts: IbisTable,
    by: str,
    aggregations: Sequence[WindowAggregation],
    *,
    when: Any,
    sign: float,
    days: int | None,
) -> IbisTable:
    """The facts themselves (days None, sign 1), or the expiries of one window (sign -1)."""
    columns = {}
    for aggregation in aggregations:
        counts = days is None or aggregation.days == days
        value = ibis.literal(1.0) if aggregation.column is None else _[aggregation.column].cast("float64")
        if aggregation.how == "last":
            happened = value.coalesce(0.0) != 0
            columns[aggregation.name] = (
                ibis.cases((happened, _[EVENT_TIMESTAMP].cast("timestamp")), else_=ibis.null("timestamp"))
                if days is None
                else ibis.null("timestamp")
            )
        else:
            columns[aggregation.name] = value.coalesce(0.0) * sign if counts else ibis.literal(0.0)
    return facts.select(
        **{by: _[by], EVENT_TIMESTAMP: when.cast("timestamp"), **columns},
        is_entity_row=ibis.literal(0, "int8"),
    )
