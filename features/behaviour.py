"""What shoppers did before a moment: how recently, how often, for how much, on what."""

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.shop import Shop, topics
from features.timeline import MOMENT, Measure, totals_before

RECENT_DAYS = 30
MAX_TOPICS = 256
MAX_ITEMS = 1024

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
        acts.join(visits, ["user_id", MOMENT])
        .mutate(
            user_days_since_event=days_between(_.last_event, _[MOMENT]),
            user_days_since_purchase=days_between(_.last_purchase, _[MOMENT]),
            user_amount_per_session=ratio(_.user_amount, _.user_num_sessions),
            user_click_rate=ratio(_.user_num_clicks, _.user_num_views),
        )
        .drop("last_event", "last_purchase")
    )


def user_history(shop: Shop, moments: IbisTable, history_days: int) -> IbisTable:
    """What each shopper turned to in the last `history_days`, one row per (shopper, moment).

    Returns:
        user_id, event_timestamp, and lists that run in parallel, newest first:
        topics, topic_visits, topic_amounts, topic_days (at most 256);
        items, item_visits, item_amounts, item_days (at most 1024).
        `_visits` counts sessions, `_days` is days since the last time. Empty for a newcomer.
    """
    window = ibis.interval(days=history_days)
    acts = _acts(shop).join(topics(shop), "item_id")
    acts = acts.mutate(new_topic=_first_in_session("topic"), new_item=_first_in_session("item_id"))
    acts = acts.select("user_id", "item_id", "topic", MOMENT, "amount", "new_topic", "new_item")
    asked = moments.select("user_id", moment=_[MOMENT].cast("timestamp"))
    seen = asked.join(acts, "user_id").filter((_[MOMENT] < _.moment) & (_[MOMENT] >= _.moment - window))
    by_topic = _collect(seen, "topic", MAX_TOPICS, lists="topics", prefix="topic")
    by_item = _collect(seen, "item_id", MAX_ITEMS, lists="items", prefix="item")
    everyone = (
        asked.left_join(by_topic, ["user_id", "moment"])
        .drop("user_id_right", "moment_right")
        .left_join(by_item, ["user_id", "moment"])
        .drop("user_id_right", "moment_right")
        .rename({MOMENT: "moment"})
    )
    names = [name for name in everyone.columns if name not in ("user_id", MOMENT)]
    kinds = {name: "array<string>" if name in ("topics", "items") else "array<float64>" for name in names}
    empty = {name: _[name].coalesce(ibis.literal([], kind)) for name, kind in kinds.items()}
    return everyone.mutate(**empty)


def _collect(seen: IbisTable, what: str, limit: int, *, lists: str, prefix: str) -> IbisTable:
    """The most recent distinct values of a column with their counts, as parallel lists."""
    grouped = seen.group_by(["user_id", "moment", what]).aggregate(
        visits=_[f"new_{prefix}"].sum(),
        amount=_.amount.sum().coalesce(0.0).round(4),
        days=days_between(_[MOMENT].max(), _.moment.max()),
    )
    entry = ibis.struct({"days": _.days, "fewness": -_.visits, "what": _[what], "amount": _.amount})
    listed = grouped.group_by(["user_id", "moment"]).aggregate(entries=entry.collect())
    newest = listed.mutate(entries=_.entries.sort()[:limit])
    return newest.select(
        "user_id",
        "moment",
        **{
            lists: _.entries.map(lambda entry: entry["what"]),
            f"{prefix}_visits": _.entries.map(lambda entry: -entry["fewness"]),
            f"{prefix}_amounts": _.entries.map(lambda entry: entry["amount"]),
            f"{prefix}_days": _.entries.map(lambda entry: entry["days"]),
        },
    )


def _first_in_session(what: str) -> ibis.Value:
    """1 for the first event of a shopper on `what` in a session, else 0: their sum counts visits."""
    in_session = ibis.window(group_by=["user_id", "session", what], order_by=[MOMENT, "event_id"])
    return (ibis.row_number().over(in_session) == 0).cast("float64")


def _acts(shop: Shop) -> IbisTable:
    """Events with flags as numbers and a session for each."""
    return shop.events.select(
        "event_id",
        "user_id",
        "item_id",
        MOMENT,
        "amount",
        "dwell_seconds",
        session=_.session_id.coalesce(_.event_id),
        is_view=(_.event_type == "view").cast("float64"),
        is_click=(_.event_type == "click").cast("float64"),
        is_purchase=(_.event_type == "purchase").cast("float64"),
        is_act=ibis.literal(1.0),
    )


def _visits(shop: Shop) -> IbisTable:
    """One row per session, at its first event."""
    return _acts(shop).group_by(["user_id", "session"]).aggregate(**{MOMENT: _[MOMENT].min()})


def days_between(start: ibis.Value, end: ibis.Value) -> ibis.Value:
    """Days from one timestamp column to another, float64, null where either is null."""
    seconds = end.epoch_seconds().cast("float64") - start.epoch_seconds().cast("float64")
    return seconds / ibis.literal(DAY_SECONDS, "float64")


def ratio(part: ibis.Value, whole: ibis.Value) -> ibis.Value:
    """Part / whole, null where whole is 0."""
    return part / whole.nullif(0.0)
