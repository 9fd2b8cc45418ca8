"""Interaction histories: what each user interacted with and said strictly before an as-of time, newest first."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.feedback import RatingRange, feedback_texts
from features.views.shop import Shop, topics
from features.views.user_behaviour import RECENT_DAYS, days_between, session_events
from features.views.windows import EVENT_TIMESTAMP

HISTORY_LENGTH = 256
"""The newest topics that the model reads: with 64, most of what heavy shoppers do stays hidden."""

MAX_ITEMS = 2048
MAX_FEEDBACK = 64


def user_history(
    shop: Shop, entity_rows: IbisTable, history_days: int, rating_range: RatingRange
) -> IbisTable:
    """Interactions and feedback of the last `history_days`, one row per (user_id, event_timestamp).

    Returns:
        user_id, event_timestamp, and lists that run in parallel, newest first:
        topics, topic_sessions, topic_amounts, topic_days (at most 256);
        items, item_sessions, item_amounts, item_days, item_recents, item_coupons, item_firsts (at most 2048);
        feedback_texts, feedback_counts, feedback_sentiments, feedback_days_ago (at most 64).
        `_sessions` counts sessions, `_recents` those of the last 30 days, `_coupons` events with a
        coupon; `_days` is days since the last time, `_firsts` since the first. Empty for a cold-start user.
    """
    entity_rows = entity_rows.select("user_id", as_of=_[EVENT_TIMESTAMP].cast("timestamp"))
    interactions = interactions_before(topic_events(shop), entity_rows, history_days)
    return fill_lists(
        entity_rows,
        latest_interactions(interactions, "topic", HISTORY_LENGTH, lists="topics", prefix="topic"),
        latest_interactions(
            interactions, "item_id", MAX_ITEMS, lists="items", prefix="item", more=_of_items()
        ),
        latest_feedback(interactions_before(feedback_texts(shop, rating_range), entity_rows, history_days)),
    )


def interactions_before(events: IbisTable, entity_rows: IbisTable, days: int) -> IbisTable:
    """Events of each entity row's user strictly before its as_of, at most so many days before."""
    window = ibis.interval(days=days)
    return entity_rows.join(events, "user_id").filter(
        (_[EVENT_TIMESTAMP] < _.as_of) & (_[EVENT_TIMESTAMP] >= _.as_of - window)
    )


def latest_interactions(
    interactions: IbisTable,
    what: str,
    limit: int,
    *,
    lists: str,
    prefix: str,
    more: Mapping[str, ibis.Value] = MappingProxyType({}),
) -> IbisTable:
    """The most recent distinct values of a column with their counts, as parallel lists.

    Args:
        interactions: columns user_id, as_of, event_timestamp, amount, `what`, and sessions_`what`, whose sum counts.
        what: the column.
        limit: how many values to keep, the newest.
        lists: name of the list of values.
        prefix: of the lists beside it: `_sessions`, `_amounts`, `_days`, and one for each of `more`.
        more: name of a list -> what is aggregated of each value.
    """
    grouped = interactions.group_by(["user_id", "as_of", what]).aggregate(
        sessions=_[f"sessions_{what}"].sum(),
        amount=_.amount.sum().coalesce(0.0).round(4),
        days=days_between(_[EVENT_TIMESTAMP].max(), _.as_of.max()),
        **more,
    )
    shown = {
        lists: _[what],
        f"{prefix}_sessions": _.sessions,
        f"{prefix}_amounts": _.amount,
        f"{prefix}_days": _.days,
        **{f"{prefix}_{name}": _[name] for name in more},
    }
    return _newest(grouped, {"days": _.days, "minus_sessions": -_.sessions, "what": _[what]}, shown, limit)


def _newest(
    grouped: IbisTable, order: Mapping[str, ibis.Value], shown: Mapping[str, ibis.Value], limit: int
) -> IbisTable:
    """The first rows of each (user_id, as_of) in that order, as parallel lists of what is shown."""
    entry = ibis.struct({f"order_{name}": value for name, value in order.items()} | dict(shown))
    listed = grouped.group_by(["user_id", "as_of"]).aggregate(entries=entry.collect())
    newest = listed.mutate(entries=_.entries.sort()[:limit])
    return newest.select("user_id", "as_of", **{name: _.entries.map(_field(name)) for name in shown})


def _of_items() -> dict[str, ibis.Value]:
    """Aggregates of each item of a history beside its sessions, amount and days."""
    recent = _[EVENT_TIMESTAMP] >= _.as_of - ibis.interval(days=RECENT_DAYS)
    return {
        "recents": (_.sessions_item_id * recent.cast("float64")).sum(),
        "coupons": _.with_coupon.sum(),
        "firsts": days_between(_[EVENT_TIMESTAMP].min(), _.as_of.max()),
    }


def _field(name: str) -> Callable[[ibis.Value], ibis.Value]:
    return lambda entry: entry[name]


def latest_feedback(interactions: IbisTable) -> IbisTable:
    """The most recent distinct feedback of each (user_id, as_of), as parallel lists.

    Args:
        interactions: what `interactions_before` found of `features.views.feedback.feedback_texts`.

    Returns:
        user_id, as_of; feedback_texts, feedback_counts (how often it was said), feedback_sentiments (their mean, 0
        where unknown), feedback_days_ago (since the last time); newest first, at most MAX_FEEDBACK.
    """
    grouped = interactions.group_by(["user_id", "as_of", "feedback_text"]).aggregate(
        times=_.count().cast("float64"),
        sentiment=_.sentiment.mean().coalesce(0.0).round(6),
        days=days_between(_[EVENT_TIMESTAMP].max(), _.as_of.max()),
    )
    shown = {
        "feedback_texts": _.feedback_text,
        "feedback_counts": _.times,
        "feedback_sentiments": _.sentiment,
        "feedback_days_ago": _.days,
    }
    return _newest(grouped, {"days": _.days}, shown, MAX_FEEDBACK)


def fill_lists(entity_rows: IbisTable, *parts: IbisTable) -> IbisTable:
    """The lists of each entity row; empty ones where a part has no row."""
    found = entity_rows
    for part in parts:
        found = found.left_join(part, ["user_id", "as_of"]).drop("user_id_right", "as_of_right")
    empty = {
        name: _[name].coalesce(ibis.literal([], str(kind)))
        for name, kind in found.schema().items()
        if kind.is_array()
    }
    return found.mutate(**empty).rename({EVENT_TIMESTAMP: "as_of"})


def topic_events(shop: Shop) -> IbisTable:
    """Events on items that are about something, each with its topic and flags whose sums count sessions."""
    events = session_events(shop).join(topics(shop), "item_id")
    counted = events.mutate(
        sessions_topic=_first_in_session("topic"), sessions_item_id=_first_in_session("item_id")
    )
    columns = ("user_id", "item_id", "topic", EVENT_TIMESTAMP, "amount", "with_coupon")
    return counted.select(*columns, "sessions_topic", "sessions_item_id")


def _first_in_session(what: str) -> ibis.Value:
    """1 for the first event of a shopper on `what` in a session, else 0: their sum counts sessions."""
    in_session = ibis.window(group_by=["user_id", "session", what], order_by=[EVENT_TIMESTAMP, "event_id"])
    return (ibis.row_number().over(in_session) == 0).cast("float64")
