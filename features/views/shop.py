"""A shop's checked tables as Ibis expressions, and what its items cover.

The same expressions run on DuckDB (one machine) and on Spark (a cluster): nothing here or in the
feature modules is written for one engine.
"""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import pandas as pd
from ibis import _
from ibis.backends import BaseBackend
from ibis.expr.types import Table as IbisTable

from expectations.contracts.shop_tables import COLD_START_USER
from expectations.contracts.source import Source
from expectations.errors import SchemaError
from features.views.outcome_window import resolve_outcomes
from features.views.windows import EVENT_TIMESTAMP

COVERS = "covers"

LEVELS = ("item", "line", "topic", "category", "brand", "department")
"""What an item belongs to, from narrow to wide. A line is what one brand makes of one topic."""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The six tables; an optional table that the shop does not bring has no rows.

    Attributes:
        exposures: with the columns of `features.views.outcome_window.resolve_outcomes`; anonymous readers are the
            COLD_START_USER.
        with_feedback: whether the shop brings the table of that name: without it there are no features of it.
    """

    users: IbisTable
    items: IbisTable
    events: IbisTable
    exposures: IbisTable
    feedback: IbisTable
    relations: IbisTable
    with_feedback: bool


def read_shop(connection: BaseBackend, folders: Mapping[str, Path], source: Source) -> Shop:
    """The checked tables under their folders.

    Args:
        connection: an Ibis backend.
        folders: table name -> folder of its current version; optional tables may be absent.
        source: the declaration, for its extra columns and outcome windows.

    Raises:
        SchemaError: a required table is not there.
    """
    tables = {}
    for name, contract in source.contracts().items():
        if name in folders:
            parquet = connection.read_parquet(f"{glob.escape(str(folders[name]))}/**/*.parquet")
            tables[name] = parquet.select([column.name for column in contract.columns])
        elif contract.required:
            raise SchemaError(f"table {name} has no checked rows; run ingestion and validation first")
        else:
            tables[name] = ibis.memtable(contract.schema.empty_table())
    tables["exposures"] = resolve_outcomes(tables["exposures"], source.outcome_window).mutate(
        user_id=_.user_id.fill_null(COLD_START_USER)
    )
    return Shop(**tables, with_feedback="feedback" in folders)


def horizon(shop: Shop) -> datetime:
    """The first midnight (UTC) after everything that the tables say happened."""
    latest = [
        table[column].max().execute()
        for table, column in (
            (shop.events, EVENT_TIMESTAMP),
            (shop.exposures, EVENT_TIMESTAMP),
            (shop.exposures, "outcome_timestamp"),
            (shop.feedback, EVENT_TIMESTAMP),
        )
    ]
    last = max(timestamp.to_pydatetime() for timestamp in latest if not pd.isna(timestamp))
    return datetime(last.year, last.month, last.day) + timedelta(days=1)


def user_entity_rows(shop: Shop, now: datetime) -> IbisTable:
    """Columns user_id, event_timestamp: one row per such pair of an exposure, and everyone's now."""
    known = ibis.union(
        shop.users.select("user_id"),
        shop.events.select("user_id"),
        shop.exposures.select("user_id"),
        shop.feedback.select("user_id"),
        ibis.memtable({"user_id": [COLD_START_USER]}),
        distinct=True,
    )
    return ibis.union(
        shop.exposures.select("user_id", EVENT_TIMESTAMP),
        known.mutate(**{EVENT_TIMESTAMP: ibis.literal(now).cast("timestamp(6)")}),
        distinct=True,
    )


def candidates(shop: Shop) -> IbisTable:
    """The items that may be shown: those of a type that the shop has ever exposed.

    A grocer's products that only ever were bought are not candidates; its coupons are.
    """
    shown = shop.exposures.select("item_id").distinct()
    types = shop.items.semi_join(shown, "item_id").select("item_type").distinct()
    return shop.items.semi_join(types, "item_type")


def item_entity_rows(shop: Shop, now: datetime) -> IbisTable:
    """Columns item_id, event_timestamp: one row per such pair of an exposure, and every candidate's now."""
    return ibis.union(
        shop.exposures.select("item_id", EVENT_TIMESTAMP),
        candidates(shop)
        .select("item_id")
        .mutate(**{EVENT_TIMESTAMP: ibis.literal(now).cast("timestamp(6)")}),
        distinct=True,
    )


def topics(shop: Shop) -> IbisTable:
    """One row per item that is about something: item_id; topic, its whole category path in words, or its text."""
    found = shop.items.select("item_id", topic=_topic())
    return found.filter(_.topic.notnull() & (_.topic != ""))


def levels(shop: Shop) -> IbisTable:
    """What each item belongs to, from the item itself to its department.

    Returns:
        Columns item_id, level (of LEVELS), key; a level that an item's row does not tell has no row.
    """
    depth, path = _.categories.length().coalesce(0), _.categories
    named = shop.items.select(
        "item_id",
        item=_.item_id,
        line=_.brand.concat(": ", _topic()),
        topic=_topic(),
        category=ibis.ifelse(depth > 1, path[:-1].join(", "), _topic()),
        brand=_.brand,
        department=ibis.ifelse(depth > 0, path[0], _topic()),
    )
    parts = [
        named.select("item_id", level=ibis.literal(level), key=_[level]).filter(
            _.key.notnull() & (_.key != "")
        )
        for level in LEVELS
    ]
    return ibis.union(*parts, distinct=False)


def _topic() -> ibis.Value:
    return ibis.ifelse(_.categories.length().coalesce(0) > 0, _.categories.join(", "), _.text)


def coverage(shop: Shop) -> IbisTable:
    """Columns item_id, covered_id: a candidate and what it stands for, a campaign's products or the item itself."""
    edges = shop.relations.filter(_.relation == COVERS).select(item_id="source_id", covered_id="target_id")
    edges = edges.semi_join(candidates(shop), "item_id")
    alone = candidates(shop).anti_join(edges, "item_id").select("item_id", covered_id="item_id")
    return ibis.union(edges, alone, distinct=True)


def item_keys(shop: Shop) -> IbisTable:
    """What each candidate covers, at every level.

    Returns:
        Columns item_id, level, key; weight: the key's share of the covered items that have one at that
        level; covered: how many items these are.
    """
    of_covered = levels(shop).rename(covered_id="item_id")
    counted = (
        coverage(shop)
        .join(of_covered, "covered_id")
        .group_by(["item_id", "level", "key"])
        .aggregate(covered=_.count().cast("float64"))
    )
    whole = ibis.window(group_by=["item_id", "level"])
    return counted.mutate(weight=_.covered / _.covered.sum().over(whole))


def item_topics(shop: Shop) -> IbisTable:
    """One row per (candidate, topic it covers): columns item_id, topic, weight."""
    return item_keys(shop).filter(_.level == "topic").select("item_id", "weight", topic="key")
