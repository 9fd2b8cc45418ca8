"""The DuckDB that feature expressions run in: bounded memory, spill in a folder of the caller's."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ibis
import pyarrow.parquet as pq
from ibis.backends import BaseBackend
from ibis.expr.types import Table as IbisTable

from expectations.suites.rules import literal

SCRATCH = "scratch"
"""Below the folder that is being written: what an engine spills, and what it reads again."""

_DISABLED = "join_order"

ROW_GROUP_BYTES = "64MB"
"""Rows with lists are wide: a row group of so many rows would be held whole by each thread."""


def open_engine(*, memory: str | None = None, spill: Path | None = None) -> BaseBackend:
    """An in-memory DuckDB for feature expressions.

    Joins run in the order in which they are written: the optimizer's own order joins on the timestamp
    alone where entity and timestamp are meant, and takes minutes for what takes a second. As-of joins are sorted, never
    loops: a table of a hundred thousand rows may be estimated at none.

    Args:
        memory: what it may use, such as "6GB"; None: DuckDB's own limit.
        spill: where it puts what does not fit; None: nowhere, what does not fit fails.
    """
    connection = ibis.duckdb.connect(temp_directory="" if spill is None else str(spill))
    if memory is not None:
        connection.raw_sql(f"SET memory_limit = {literal(memory)}")
    connection.raw_sql(f"SET disabled_optimizers = '{_DISABLED}'")
    connection.raw_sql("SET asof_loop_join_threshold = 0")
    connection.raw_sql("SET enable_progress_bar = false")
    connection.raw_sql("SET preserve_insertion_order = false")
    return connection


@contextmanager
def bounded_engine(memory: str | None, scratch: Path) -> Iterator[BaseBackend]:
    """An engine that spills into the folder `scratch`, which is there while the engine is.

    Put it below the folder that `expectations.storage.datasets.land` gives: after a kill the next landing removes it.
    """
    scratch.mkdir()
    connection = open_engine(memory=memory, spill=scratch)
    try:
        yield connection
    finally:
        connection.disconnect()
        shutil.rmtree(scratch)


@contextmanager
def hashing_the_right_side(connection: BaseBackend) -> Iterator[None]:
    """Within it joins stream their left side, whatever DuckDB guesses.

    Pairs and the keys of their items are a hundred times the pairs; DuckDB takes them for few and holds them all.
    """
    connection.raw_sql(f"SET disabled_optimizers = '{_DISABLED},build_side_probe_side'")
    try:
        yield
    finally:
        connection.raw_sql(f"SET disabled_optimizers = '{_DISABLED}'")


def write_table(connection: BaseBackend, table: IbisTable, path: Path) -> int:
    """Compute a table into a Parquet file and return its number of rows."""
    connection.to_parquet(table, str(path), compression="zstd", row_group_size_bytes=ROW_GROUP_BYTES)
    return int(pq.read_metadata(path).num_rows)


def write_query(connection: BaseBackend, sql: str, path: Path) -> int:
    """Write what an SQL query gives into a Parquet file and return its number of rows."""
    connection.raw_sql(
        f"COPY ({sql}) TO {literal(str(path))} (COMPRESSION zstd, ROW_GROUP_SIZE_BYTES '{ROW_GROUP_BYTES}')"
    )
    return int(pq.read_metadata(path).num_rows)
