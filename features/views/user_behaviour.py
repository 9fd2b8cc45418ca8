"""What shoppers did before a moment: how recently, how often, for how much, on what."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.feedback import RatingRange, feedback_texts
from features.views.shop import Shop, topics
from features.views.windows import EVENT_TIMESTAMP, Measure, totals_before

RECENT_DAYS = 30
MAX_TOPICS = HISTORY_LENGTH = 256
"""The newest topics that the model reads: with 64, most of what heavy shoppers do stays hidden."""

MAX_ITEMS = 2048
MAX_FEEDBACK = 64

DAY_SECONDS = 86400.0


def user_behaviour(shop: Shop, moments: IbisTable, history_days: int) -> IbisTable:
    """Recency, frequency, amount and breadth, one row per (shopper, moment).

    Counts and sums reach `history_days` back; those named `_30d` reach 30 days.

    Args:
        shop: the tables.
        moments: columns user_id, event_timestamp.
        history_days: length of the window in days.

    Returns:
        user_id, event_timestamp and the columns user_… as float64; recencies in days, null where
        the shopper has never acted.
    """
    acts = totals_before(
        _acts(shop),
        moments,
        by="user_id",
        measures=(
            Measure(name="user_num_events", days=history_days),
            Measure(name="user_num_events_30d", days=RECENT_DAYS),
            Measure(name="user_amount", column="amount", days=history_days),
            Measure(name="user_amount_30d", column="amount", days=RECENT_DAYS),
            Measure(name="user_dwell_seconds", column="dwell_seconds", days=history_days),
            Measure(name="user_num_views", column="is_view", days=history_days),
            Measure(name="user_num_clicks", column="is_click", days=history_days),
            Measure(name="user_num_purchases", column="is_purchase", days=history_days),
            Measure(name="last_event", column="is_act", how="last"),
            Measure(name="last_purchase", column="is_purchase", how="last"),
            Measure(name="user_num_coupons", column="with_coupon", days=history_days),
            Measure(name="user_num_coupons_30d", column="with_coupon", days=RECENT_DAYS),
            Measure(name="user_coupon_amount", column="coupon_discount", days=history_days),
            Measure(name="num_discounted", column="is_discounted", days=history_days),
            Measure(name="last_coupon", column="with_coupon", how="last"),
        ),
    )
    visits = totals_before(
        _visits(shop),
        moments,
        by="user_id",
        measures=(
            Measure(name="user_num_sessions", days=history_days),
            Measure(name="user_num_sessions_30d", days=RECENT_DAYS),
        ),
    )
    return (
        acts.join(visits, ["user_id", EVENT_TIMESTAMP])
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


def user_history(shop: Shop, moments: IbisTable, history_days: int, rating_range: RatingRange) -> IbisTable:
    """What each shopper turned to and said in the last `history_days`, one row per (shopper, moment).

    Returns:
        user_id, event_timestamp, and lists that run in parallel, newest first:
        topics, topic_visits, topic_amounts, topic_days (at most 256);
        items, item_visits, item_amounts, item_days, item_recents, item_coupons, item_firsts (at most 2048);
        remarks, feedback_counts, feedback_sentiments, feedback_days_ago (at most 64).
        `_visits` counts sessions, `_recents` those of the last 30 days, `_coupons` acts with a coupon;
        `_days` is days since the last time, `_firsts` since the first. Empty for a newcomer.
    """
    asked = moments.select("user_id", moment=_[EVENT_TIMESTAMP].cast("timestamp"))
    seen = seen_before(topical_acts(shop), asked, history_days)
    return fill_lists(
        asked,
        newest(seen, "topic", MAX_TOPICS, lists="topics", prefix="topic"),
        newest(seen, "item_id", MAX_ITEMS, lists="items", prefix="item", more=_of_items()),
        newest_feedback(seen_before(feedback_texts(shop, rating_range), asked, history_days)),
    )


def seen_before(acts: IbisTable, asked: IbisTable, days: int) -> IbisTable:
    """Acts of a shopper strictly before each moment asked of, at most so many days before."""
    window = ibis.interval(days=days)
    return asked.join(acts, "user_id").filter(
        (_[EVENT_TIMESTAMP] < _.moment) & (_[EVENT_TIMESTAMP] >= _.moment - window)
    )


def newest(
    seen: IbisTable,
    what: str,
    limit: int,
    *,
    lists: str,
    prefix: str,
    more: Mapping[str, ibis.Value] = MappingProxyType({}),
) -> IbisTable:
    """The most recent distinct values of a column with their counts, as parallel lists.

    Args:
        seen: columns user_id, moment, event_timestamp, amount, `what`, and visits_`what`, whose sum counts.
        what: the column.
        limit: how many values to keep, the newest.
        lists: name of the list of values.
        prefix: of the lists beside it: `_visits`, `_amounts`, `_days`, and one for each of `more`.
        more: name of a list -> what is aggregated of each value.
    """
    grouped = seen.group_by(["user_id", "moment", what]).aggregate(
        visits=_[f"visits_{what}"].sum(),
        amount=_.amount.sum().coalesce(0.0).round(4),
        days=days_between(_[EVENT_TIMESTAMP].max(), _.moment.max()),
        **more,
    )
    entry = ibis.struct(
        {"days": _.days, "fewness": -_.visits, "what": _[what], "amount": _.amount}
        | {name: _[name] for name in more}
    )
    listed = grouped.group_by(["user_id", "moment"]).aggregate(entries=entry.collect())
    kept = listed.mutate(entries=_.entries.sort()[:limit])
    return kept.select(
        "user_id",
        "moment",
        **{
            lists: _.entries.map(lambda entry: entry["what"]),
            f"{prefix}_visits": _.entries.map(lambda entry: -entry["fewness"]),
            f"{prefix}_amounts": _.entries.map(lambda entry: entry["amount"]),
            f"{prefix}_days": _.entries.map(lambda entry: entry["days"]),
            **{f"{prefix}_{name}": _.entries.map(_field(name)) for name in more},
        },
    )


def _of_items() -> dict[str, ibis.Value]:
    """What is kept of each item of a history beside its visits, amount and days."""
    recent = _[EVENT_TIMESTAMP] >= _.moment - ibis.interval(days=RECENT_DAYS)
    return {
        "recents": (_.visits_item_id * recent.cast("float64")).sum(),
        "coupons": _.with_coupon.sum(),
        "firsts": days_between(_[EVENT_TIMESTAMP].min(), _.moment.max()),
    }


def _field(name: str) -> Callable[[ibis.Value], ibis.Value]:
    return lambda entry: entry[name]


def newest_feedback(seen: IbisTable) -> IbisTable:
    """The most recent distinct remarks of each shopper and moment, as parallel lists.

    Args:
        seen: what `seen_before` found of `features.views.feedback.feedback_texts`.

    Returns:
        user_id, moment; remarks, feedback_counts (how often it was said), feedback_sentiments (their mean, 0
        where unknown), feedback_days_ago (since the last time); newest first, at most MAX_FEEDBACK.
    """
    grouped = seen.group_by(["user_id", "moment", "feedback_text"]).aggregate(
        times=_.count().cast("float64"),
        sentiment=_.sentiment.mean().coalesce(0.0).round(6),
        days=days_between(_[EVENT_TIMESTAMP].max(), _.moment.max()),
    )
    entry = ibis.struct(
        {"days": _.days, "feedback_text": _.feedback_text, "times": _.times, "sentiment": _.sentiment}
    )
    listed = grouped.group_by(["user_id", "moment"]).aggregate(entries=entry.collect())
    kept = listed.mutate(entries=_.entries.sort()[:MAX_FEEDBACK])
    return kept.select(
        "user_id",
        "moment",
        feedback_texts=_.entries.map(lambda entry: entry["feedback_text"]),
        feedback_counts=_.entries.map(lambda entry: entry["times"]),
        feedback_sentiments=_.entries.map(lambda entry: entry["sentiment"]),
        feedback_days_ago=_.entries.map(lambda entry: entry["days"]),
    )


def fill_lists(asked: IbisTable, *parts: IbisTable) -> IbisTable:
    """The lists of each moment asked of; empty ones where a part has no row."""
    found = asked
    for part in parts:
        found = found.left_join(part, ["user_id", "moment"]).drop("user_id_right", "moment_right")
    empty = {
        name: _[name].coalesce(ibis.literal([], str(kind)))
        for name, kind in found.schema().items()
        if kind.is_array()
    }
    return found.mutate(**empty).rename({EVENT_TIMESTAMP: "moment"})


def topical_acts(shop: Shop) -> IbisTable:
    """Events on items that are about something, each with its topic and flags whose sums count visits."""
    acts = _acts(shop).join(topics(shop), "item_id")
    counted = acts.mutate(
        visits_topic=_first_in_session("topic"), visits_item_id=_first_in_session("item_id")
    )
    columns = ("user_id", "item_id", "topic", EVENT_TIMESTAMP, "amount", "with_coupon")
    return counted.select(*columns, "visits_topic", "visits_item_id")


def _first_in_session(what: str) -> ibis.Value:
    """1 for the first event of a shopper on `what` in a session, else 0: their sum counts visits."""
    in_session = ibis.window(group_by=["user_id", "session", what], order_by=[EVENT_TIMESTAMP, "event_id"])
    return (ibis.row_number().over(in_session) == 0).cast("float64")


def _acts(shop: Shop) -> IbisTable:
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
        is_act=ibis.literal(1.0),
        with_coupon=above_zero(_.coupon_discount),
        is_discounted=above_zero(_.discount),
    )


def _visits(shop: Shop) -> IbisTable:
    """One row per session, at its first event."""
    return (
        _acts(shop).group_by(["user_id", "session"]).aggregate(**{EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].min()})
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
