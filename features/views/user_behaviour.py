"""Recency, frequency and amount of a user's events strictly before an event_timestamp."""

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.request_context import DAY_SECONDS
from features.views.shop import Shop
from features.views.windows import EVENT_TIMESTAMP, WindowAggregation, aggregate_before

RECENT_DAYS = 30


def user_behaviour(shop: Shop, entity_rows: IbisTable, history_days: int) -> IbisTable:
    """Recency, frequency, amount and breadth, one row per (user_id, event_timestamp).

    Counts and sums reach `history_days` back; those named `_30d` reach 30 days.

    Args:
        shop: the tables.
        entity_rows: columns user_id, event_timestamp.
        history_days: length of the window in days.

    Returns:
        user_id, event_timestamp and the columns user_… as float64; recencies in days, null where
        the user has no such event.
    """
    events = aggregate_before(
        session_events(shop),
        entity_rows,
        by="user_id",
        aggregations=(
            WindowAggregation(name="user_num_events", days=history_days),
            WindowAggregation(name="user_num_events_30d", days=RECENT_DAYS),
            WindowAggregation(name="user_amount", column="amount", days=history_days),
            WindowAggregation(name="user_amount_30d", column="amount", days=RECENT_DAYS),
            WindowAggregation(name="user_dwell_seconds", column="dwell_seconds", days=history_days),
            WindowAggregation(name="user_num_views", column="is_view", days=history_days),
            WindowAggregation(name="user_num_clicks", column="is_click", days=history_days),
            WindowAggregation(name="user_num_purchases", column="is_purchase", days=history_days),
            WindowAggregation(name="last_event", column="is_event", how="last"),
            WindowAggregation(name="last_purchase", column="is_purchase", how="last"),
            WindowAggregation(name="user_num_coupons", column="with_coupon", days=history_days),
            WindowAggregation(name="user_num_coupons_30d", column="with_coupon", days=RECENT_DAYS),
            WindowAggregation(name="user_coupon_amount", column="coupon_discount", days=history_days),
            WindowAggregation(name="num_discounted", column="is_discounted", days=history_days),
            WindowAggregation(name="last_coupon", column="with_coupon", how="last"),
        ),
    )
    sessions = aggregate_before(
        _sessions(shop),
        entity_rows,
        by="user_id",
        aggregations=(
            WindowAggregation(name="user_num_sessions", days=history_days),
            WindowAggregation(name="user_num_sessions_30d", days=RECENT_DAYS),
        ),
    )
    return (
        events.join(sessions, ["user_id", EVENT_TIMESTAMP])
        .mutate(
            user_days_since_event=days_between(_.last_event, _[EVENT_TIMESTAMP]),
            user_days_since_purchase=days_between(_.last_purchase, _[EVENT_TIMESTAMP]),
            user_amount_per_session=ratio(_.user_amount, _.user_num_sessions),
            user_click_rate=ratio(_.user_num_clicks, _.user_num_views),
            user_days_since_coupon=days_between(_.last_coupon, _[EVENT_TIMESTAMP]),
            user_coupon_rate=ratio(_.user_num_coupons, _.user_num_purchases),
            user_discount_rate=ratio(_.num_discounted, _.user_num_purchases),
        )
        .drop("last_event", "last_purchase", "last_coupon", "num_discounted")
    )


def session_events(shop: Shop) -> IbisTable:
    """Events with flags as numbers and a session for each."""
    return shop.events.select(
        "event_id",
        "user_id",
        "item_id",
        EVENT_TIMESTAMP,
        "amount",
        "dwell_seconds",
        "coupon_discount",
        session=_.session_id.coalesce(_.event_id),
        is_view=(_.event_type == "view").cast("float64"),
        is_click=(_.event_type == "click").cast("float64"),
        is_purchase=(_.event_type == "purchase").cast("float64"),
        is_event=ibis.literal(1.0),
        with_coupon=above_zero(_.coupon_discount),
        is_discounted=above_zero(_.discount),
    )


def _sessions(shop: Shop) -> IbisTable:
    """One row per session, at its first event."""
    return (
        session_events(shop)
        .group_by(["user_id", "session"])
        .aggregate(**{EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].min()})
    )


def days_between(start: ibis.Value, end: ibis.Value) -> ibis.Value:
    """Days from one timestamp column to another, float64, null where either is null."""
    seconds = end.epoch_seconds().cast("float64") - start.epoch_seconds().cast("float64")
    return seconds / ibis.literal(DAY_SECONDS, "float64")


def above_zero(amount: ibis.Value) -> ibis.Value:
    """1 where there is an amount above 0, else 0; their sum counts."""
    return (amount.coalesce(0) > 0).cast("float64")


def ratio(part: ibis.Value, whole: ibis.Value) -> ibis.Value:
    """Part / whole, null where whole is 0."""
    return part / whole.nullif(0.0)
