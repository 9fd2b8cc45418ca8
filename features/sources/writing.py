"""A staged table becomes files: its accepted rows as the contract's Parquet, the others as quarantine."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from expectations.contracts.schema import Table
from expectations.storage.quarantine import QUARANTINE_SCHEMA
from features.sources.staging import REASON, ROW, STAGED, first_row, identifier

_ROW_GROUP = 250_000


def count_rows(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """How many staged rows are accepted, and how many rejected."""
    num_rows, num_rejected = first_row(
        con,
        f"SELECT count(*) FILTER ({REASON} IS NULL), count({REASON}) FROM {STAGED}",  # noqa: S608 — ours
    )
    return num_rows, num_rejected


def first_reason(con: duckdb.DuckDBPyConnection) -> str:
    """Why the first rejected row is rejected."""
    sql = f"SELECT {REASON} FROM {STAGED} WHERE {REASON} IS NOT NULL LIMIT 1"  # noqa: S608 — ours
    (reason,) = first_row(con, sql)
    return str(reason)


def write_table(con: duckdb.DuckDBPyConnection, contract: Table, folder: Path) -> None:
    """Write the accepted rows of the staged table, in month folders where it has an event time.

    The rows are ordered by event time and key, ties as they were read: the same input gives the
    same bytes.
    """
    folder.mkdir()
    names = ", ".join(identifier(column.name) for column in contract.columns)
    order = ", ".join(identifier(name) for name in (contract.event_time, *contract.key) if name)
    rows = f"SELECT {names} FROM {STAGED} WHERE {REASON} IS NULL"  # noqa: S608 — quoted
    if contract.event_time is None:
        _write(con.sql(f"{rows} ORDER BY {order}, rowid"), contract, folder)
        return
    month = f"date_trunc('month', {identifier(contract.event_time)})"
    months = con.execute(
        f"SELECT DISTINCT {month} AS month FROM {STAGED} WHERE {REASON} IS NULL ORDER BY month"  # noqa: S608
    ).fetchall()
    for (timestamp,) in months:
        part = folder / f"month={timestamp:%Y-%m}"
        part.mkdir()
        of_month = con.sql(f"{rows} AND {month} = ? ORDER BY {order}, rowid", params=[timestamp])
        _write(of_month, contract, part)


def _write(rows: duckdb.DuckDBPyRelation, contract: Table, folder: Path) -> None:
    """Write one file through Arrow: DuckDB's own writer marks columns that happen to be full as not null."""
    with pq.ParquetWriter(folder / "part-0.parquet", contract.schema, compression="zstd") as writer:
        for batch in rows.to_arrow_reader(_ROW_GROUP):
            writer.write_batch(batch.cast(contract.schema))


def write_rejected(con: duckdb.DuckDBPyConnection, table: str, target: Path) -> None:
    """Write the staged table's rejected rows in the quarantine's schema; nothing where there are none."""
    rejected = con.sql(
        f"SELECT ? AS \"table\", 'ingestion' AS stage, {REASON} AS reason, {ROW} AS row "  # noqa: S608
        f"FROM {STAGED} WHERE {REASON} IS NOT NULL ORDER BY rowid",
        params=[table],
    ).to_arrow_table()
    if rejected.num_rows:
        pq.write_table(rejected.cast(QUARANTINE_SCHEMA), target, compression="zstd")
