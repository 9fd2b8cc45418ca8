"""Tables that pair each entity row of a shopper with their events, computed for some shoppers at a time.

A history is read from all events before its time, so there are entity rows x events pairs, a shopper's own only. Held
at once they outgrow memory long before the tables do, and spilling them takes longer than computing them. Shoppers are
shared out by a hash into blocks of about PAIRS pairs; events are sorted by block once, so that each reads its own.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ibis import _
from ibis.backends import BaseBackend
from ibis.expr.types import Table as IbisTable
from tqdm import trange

from features.offline.engine import write_table
from features.views.shop import Shop

PAIRS = 5_000_000
"""Pairs of a block: some 1 GB of DuckDB's memory."""


def write_by_user_blocks(
    connection: BaseBackend,
    shop: Shop,
    entity_rows: IbisTable,
    compute: Callable[[Shop, IbisTable], IbisTable],
    path: Path,
    scratch: Path,
) -> int:
    """Compute a table of shoppers into a Parquet file, block by block where there are many pairs.

    Args:
        connection: the engine.
        shop: the tables.
        entity_rows: columns user_id, event_timestamp.
        compute: the table of a shop and of some of its entity rows; of events it reads those of their shoppers alone.
        path: the file.
        scratch: a folder for what is written in between.

    Returns:
        The number of rows.
    """
    num_blocks = _num_blocks(shop, entity_rows)
    if num_blocks <= 1:
        return write_table(connection, compute(shop, entity_rows), path)
    block = (_.user_id.hash() % num_blocks).abs().cast("int32")
    events, parts = scratch / "events.parquet", scratch / "parts"
    write_table(connection, shop.events.mutate(block=block).order_by("block"), events)
    rows = connection.create_table("entity_rows_by_block", entity_rows.mutate(block=block), temp=True)
    by_block = connection.read_parquet(str(events))
    parts.mkdir()
    for number in trange(num_blocks, desc=path.stem, unit="block", leave=False):
        some = replace(shop, events=by_block.filter(_.block == number).drop("block"))
        table = compute(some, rows.filter(_.block == number).drop("block"))
        write_table(connection, table, parts / f"{number}.parquet")
    events.unlink()
    num_rows = write_table(connection, connection.read_parquet(str(parts / "*.parquet")), path)
    shutil.rmtree(parts)
    return num_rows


def _num_blocks(shop: Shop, entity_rows: IbisTable) -> int:
    """So many that each has some PAIRS entity rows and events, before or after each other; at most one a shopper."""
    num_rows = entity_rows.group_by("user_id").aggregate(num_rows=_.count())
    events = shop.events.group_by("user_id").aggregate(num_events=_.count())
    found = num_rows.join(events, "user_id").aggregate(
        pairs=(_.num_rows * _.num_events).sum().coalesce(0), users=_.count()
    )
    pairs, users = found.execute().iloc[0]
    return int(min(users, -(-pairs // PAIRS)))
