"""Histories and futures as training examples hold them: lists of text numbers.

A history is what was known of a shopper at a moment; a future is an earlier moment's history with the topics that
followed it.
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
from features.views.user_behaviour import HISTORY_LENGTH
from features.views.user_item import unnest_topics
from features.views.windows import EVENT_TIMESTAMP


def numbered_next_interactions(
    connection: BaseBackend, shop: Shop, source: Source, horizon: Any
) -> IbisTable:
    """The futures before the test part, numbered on from the shoppers' histories."""
    until = source.test_from or horizon
    found = next_interactions(shop, until, source.history_days, HISTORY_LENGTH, source.rating_range)
    first = connection.table(f"retrieved_{feature_schema.SHOPPER}").count().execute()
    number = ibis.row_number().over(ibis.window(order_by=[EVENT_TIMESTAMP, "user_id"])) + first
    return connection.create_table(
        "next_interactions", found.mutate(entity_row=number.cast("int32")), temp=True
    )


def write_interaction_histories(
    connection: BaseBackend, shoppers: IbisTable, later: IbisTable, texts: IbisTable, path: Path
) -> int:
    """One row per (shopper, moment): the newest topics, then the newest remarks, as text numbers."""
    everyone = [table.mutate(history_id=_.entity_row) for table in (shoppers, later)]
    entries = ibis.union(*(part(table) for table in everyone for part in (_topic_entries, _remark_entries)))
    newest_first = ibis.window(group_by="history_id", order_by=[_.is_said, _.days, _.visits.desc(), _.text])
    rank = ibis.row_number().over(newest_first)
    kept = entries.mutate(rank=rank).filter(_.is_said | (_["rank"] < HISTORY_LENGTH))
    coded = kept.join(texts, "text")
    codes = coded.group_by("history_id").aggregate(
        text_ids=_.text_id.collect(order_by=_["rank"]),
        events=_.visits.cast("float32").collect(order_by=_["rank"]),
        amounts=_.amount.cast("float32").collect(order_by=_["rank"]),
        days_ago=_.days.cast("float32").collect(order_by=_["rank"]),
        sentiments=_.sentiment.cast("float32").collect(order_by=_["rank"]),
    )
    no_ids, no_numbers = ibis.literal([], "array<int32>"), ibis.literal([], "array<float32>")
    filled = (
        ibis.union(*(table.select("history_id") for table in everyone))
        .left_join(codes, "history_id")
        .drop("history_id_right")
        .mutate(
            history_id=_.history_id.cast("int32"),
            text_ids=_.text_ids.coalesce(no_ids),
            events=_.events.coalesce(no_numbers),
            amounts=_.amounts.coalesce(no_numbers),
            days_ago=_.days_ago.coalesce(no_numbers),
            sentiments=_.sentiments.coalesce(no_numbers),
        )
    )
    return write_table(connection, filled.order_by("history_id"), path)


def _topic_entries(histories: IbisTable) -> IbisTable:
    """What shoppers did, as entries of their histories."""
    entries = unnest_topics(histories).rename(text="topic")
    return entries.mutate(sentiment=ibis.literal(0.0), is_said=ibis.literal(False))


def _remark_entries(histories: IbisTable) -> IbisTable:
    """What shoppers said, as entries of their histories."""
    return histories.select(
        "history_id",
        text=_.feedback_texts.unnest(),
        visits=_.feedback_counts.unnest(),
        amount=ibis.literal(0.0),
        days=_.feedback_days_ago.unnest(),
        sentiment=_.feedback_sentiments.unnest(),
        is_said=ibis.literal(True),
    )


def write_next_interactions(connection: BaseBackend, later: IbisTable, texts: IbisTable, path: Path) -> int:
    """One row per (shopper, earlier moment): the topics that followed, as text numbers."""
    named = later.select("entity_row", EVENT_TIMESTAMP, text=_.next_topics.unnest()).join(texts, "text")
    coded = named.group_by(["entity_row", EVENT_TIMESTAMP]).aggregate(
        text_ids=_.text_id.collect(order_by=_.text_id)
    )
    table = coded.select(_.entity_row.cast("int32").name("history_id"), EVENT_TIMESTAMP, "text_ids")
    return write_table(connection, table.order_by("history_id"), path)
