"""Interaction histories and next interactions as training examples hold them: lists of text numbers.

A history is what was known of a user at an event_timestamp; next interactions are the topics that followed
an earlier history: learning without labels.
"""

from datetime import datetime, timedelta
from pathlib import Path

import ibis
import pandas as pd
from ibis import _
from ibis.backends import BaseBackend
from ibis.expr.types import Table as IbisTable

from expectations.contracts.examples import NEXT_WINDOW_DAYS
from expectations.contracts.source import Source
from features.offline.engine import write_table
from features.views.feedback import RatingRange, feedback_texts
from features.views.shop import Shop
from features.views.user_history import (
    HISTORY_LENGTH,
    fill_lists,
    interactions_before,
    latest_feedback,
    latest_interactions,
    topic_events,
)
from features.views.user_item import unnest_topics
from features.views.windows import EVENT_TIMESTAMP


def next_interactions(
    shop: Shop, until: datetime, history_days: int, length: int, rating_range: RatingRange
) -> IbisTable:
    """One row per shopper and every NEXT_WINDOW_DAYS days, where something lies before and after.

    Args:
        shop: the tables.
        until: no window of next interactions ends after it.
        history_days: how far back the history reaches.
        length: topics of a history, the newest.
        rating_range: the worst and the best rating of feedback; None: of all ratings.

    Returns:
        user_id, event_timestamp, the lists of topics and of feedback of
        `features.views.user_history.user_history`, and next_topics (from then on, NEXT_WINDOW_DAYS long).
    """
    events = topic_events(shop)
    start = events[EVENT_TIMESTAMP].min().execute()
    grid_times = [] if pd.isna(start) else grid(start, until)
    frame = pd.DataFrame({"as_of": pd.Series(grid_times, dtype="datetime64[us]")})
    as_of = ibis.memtable(frame).select(as_of=_.as_of.cast("timestamp"))
    entity_rows = events.select("user_id").distinct().cross_join(as_of)
    before = interactions_before(events, entity_rows, history_days)
    before = latest_interactions(before, "topic", length, lists="topics", prefix="topic")
    feedback = latest_feedback(
        interactions_before(feedback_texts(shop, rating_range), entity_rows, history_days)
    )
    after = (
        entity_rows.join(events.select("user_id", "topic", EVENT_TIMESTAMP), "user_id")
        .filter(
            (_[EVENT_TIMESTAMP] >= _.as_of)
            & (_[EVENT_TIMESTAMP] < _.as_of + ibis.interval(days=NEXT_WINDOW_DAYS))
        )
        .select("user_id", "as_of", "topic")
        .distinct()
        .group_by(["user_id", "as_of"])
        .aggregate(next_topics=_.topic.collect(order_by=_.topic))
    )
    return fill_lists(before.join(after, ["user_id", "as_of"]), feedback)


def grid(start: datetime, until: datetime) -> list[datetime]:
    """Every NEXT_WINDOW_DAYS days: the first with a past of that length, the last with a whole window after it."""
    step = timedelta(days=NEXT_WINDOW_DAYS)
    first = datetime(start.year, start.month, start.day) + step
    count = max(0, (until - step - first) // step + 1)
    return [first + number * step for number in range(count)]


def numbered_next_interactions(
    connection: BaseBackend, shop: Shop, source: Source, horizon: datetime, num_histories: int
) -> IbisTable:
    """The next interactions before the test part, numbered on from the users' histories."""
    until = source.test_from or horizon
    found = next_interactions(shop, until, source.history_days, HISTORY_LENGTH, source.rating_range)
    number = ibis.row_number().over(ibis.window(order_by=[EVENT_TIMESTAMP, "user_id"])) + num_histories
    return connection.create_table(
        "next_interactions", found.mutate(entity_row=number.cast("int32")), temp=True
    )


def write_interaction_histories(
    connection: BaseBackend, users: IbisTable, next_windows: IbisTable, texts: IbisTable, path: Path
) -> int:
    """One row per (user_id, event_timestamp): the newest topics, then the newest feedback, as text numbers."""
    everyone = [table.mutate(history_id=_.entity_row) for table in (users, next_windows)]
    entries = ibis.union(*(part(table) for table in everyone for part in (_topic_entries, _feedback_entries)))
    # One sort of whole entries; the numbers of texts are in the order of the texts.
    entry = ibis.struct(
        {
            "is_feedback": _.is_feedback,
            "days": _.days,
            "minus_sessions": -_.sessions,
            "text_id": _.text_id,
            "amount": _.amount,
            "sentiment": _.sentiment,
        }
    )
    listed = entries.join(texts, "text").group_by("history_id").aggregate(entries=entry.collect())
    newest_first = listed.mutate(entries=_.entries.sort())
    codes = newest_first.select(
        "history_id",
        text_ids=_.entries.map(lambda entry: entry["text_id"]),
        events=_.entries.map(lambda entry: (-entry["minus_sessions"]).cast("float32")),
        amounts=_.entries.map(lambda entry: entry["amount"].cast("float32")),
        days_ago=_.entries.map(lambda entry: entry["days"].cast("float32")),
        sentiments=_.entries.map(lambda entry: entry["sentiment"].cast("float32")),
    )
    empty = {
        name: _[name].coalesce(ibis.literal([], str(kind)))
        for name, kind in codes.schema().items()
        if kind.is_array()
    }
    filled = (
        ibis.union(*(table.select("history_id") for table in everyone))
        .left_join(codes, "history_id")
        .drop("history_id_right")
        .mutate(history_id=_.history_id.cast("int32"), **empty)
    )
    return write_table(connection, filled.order_by("history_id"), path)


def _topic_entries(histories: IbisTable) -> IbisTable:
    """What shoppers did, as entries of their histories."""
    entries = unnest_topics(histories).rename(text="topic")
    return entries.mutate(sentiment=ibis.literal(0.0), is_feedback=ibis.literal(False))


def _feedback_entries(histories: IbisTable) -> IbisTable:
    """What shoppers said, as entries of their histories."""
    return histories.select(
        "history_id",
        text=_.feedback_texts.unnest(),
        sessions=_.feedback_counts.unnest(),
        amount=ibis.literal(0.0),
        days=_.feedback_days_ago.unnest(),
        sentiment=_.feedback_sentiments.unnest(),
        is_feedback=ibis.literal(True),
    )


def write_next_interactions(
    connection: BaseBackend, next_windows: IbisTable, texts: IbisTable, path: Path
) -> int:
    """One row per (user_id, earlier event_timestamp): the topics that followed, as text numbers."""
    named = next_windows.select("entity_row", EVENT_TIMESTAMP, text=_.next_topics.unnest()).join(
        texts, "text"
    )
    coded = named.group_by(["entity_row", EVENT_TIMESTAMP]).aggregate(
        text_ids=_.text_id.collect(order_by=_.text_id)
    )
    table = coded.select(_.entity_row.cast("int32").name("history_id"), EVENT_TIMESTAMP, "text_ids")
    return write_table(connection, table.order_by("history_id"), path)
