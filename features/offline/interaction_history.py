"""Interaction histories and next interactions as training examples hold them: lists of text numbers.

A history is what was known of a user at an event_timestamp; next interactions are the topics that followed
an earlier history.
"""

from pathlib import Path
from typing import Any

import ibis
from ibis import _
from ibis.backends import BaseBackend
from ibis.expr.types import Table as IbisTable

from expectations.contracts.source import Source
from features.offline.feature_rows import write_table
from features.offline.next_interactions import next_interactions
from features.views import feature_schema
from features.views.shop import Shop
from features.views.user_history import HISTORY_LENGTH
from features.views.user_item import unnest_topics
from features.views.windows import EVENT_TIMESTAMP


def numbered_next_interactions(
    connection: BaseBackend, shop: Shop, source: Source, horizon: Any
) -> IbisTable:
    """The next interactions before the test part, numbered on from the users' histories."""
    until = source.test_from or horizon
    found = next_interactions(shop, until, source.history_days, HISTORY_LENGTH, source.rating_range)
    first = connection.table(f"retrieved_{feature_schema.USER_SERVICE}").count().execute()
    number = ibis.row_number().over(ibis.window(order_by=[EVENT_TIMESTAMP, "user_id"])) + first
    return connection.create_table(
        "next_interactions", found.mutate(entity_row=number.cast("int32")), temp=True
    )


def write_interaction_histories(
    connection: BaseBackend, users: IbisTable, next_windows: IbisTable, texts: IbisTable, path: Path
) -> int:
    """One row per (user_id, event_timestamp): the newest topics, then the newest feedback, as text numbers."""
    everyone = [table.mutate(history_id=_.entity_row) for table in (users, next_windows)]
    entries = ibis.union(*(part(table) for table in everyone for part in (_topic_entries, _feedback_entries)))
    newest_first = ibis.window(
        group_by="history_id", order_by=[_.is_feedback, _.days, _.sessions.desc(), _.text]
    )
    rank = ibis.row_number().over(newest_first)
    kept = entries.mutate(rank=rank).filter(_.is_feedback | (_["rank"] < HISTORY_LENGTH))
    coded = kept.join(texts, "text")
    codes = coded.group_by("history_id").aggregate(
        text_ids=_.text_id.collect(order_by=_["rank"]),
        events=_.sessions.cast("float32").collect(order_by=_["rank"]),
        amounts=_.amount.cast("float32").collect(order_by=_["rank"]),
        days_ago=_.days.cast("float32").collect(order_by=_["rank"]),
        sentiments=_.sentiment.cast("float32").collect(order_by=_["rank"]),
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
