"""What connectors and landing share: DuckDB, the staged form of a table, and how it becomes files.

A connector answers with one `Reading` per table it found. Landing compares identities, and calls
`stage` only where something changed. A staged table is the temporary DuckDB table `staged` with the
contract's columns in their order and types, then two more: the reasons why a row is rejected (null for
a row that lands), and the shop's own row as JSON for the quarantine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb
import pyarrow.parquet as pq

from expectations.contracts.schema import QUARANTINE_SCHEMA, ColumnType, Table
from expectations.errors import ImplementationError, SchemaError, SettingError, TransientError
from expectations.suites.rules import quoted

STAGED = "staged"
REASONS = "__reasons"
ROW = "__row"

_ROW_GROUP = 250_000

SQL_TYPES: Mapping[ColumnType, str] = MappingProxyType(
    {
        "string": "VARCHAR",
        "strings": "VARCHAR[]",
        "timestamp": "TIMESTAMP",
        "integer": "BIGINT",
        "number": "DOUBLE",
        "boolean": "BOOLEAN",
    }
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One contract table, found in a shop's data but not read yet.

    Attributes:
        identity: changes when the content does.
        stage: makes the table `staged` in the connection that it is given.
    """

    identity: str
    stage: Callable[[duckdb.DuckDBPyConnection], None]


def first_row(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> Any:
    """The first row of a result, or None; all rows are fetched, so that the connection is free."""
    rows = con.execute(sql, list(parameters)).fetchall()
    return rows[0] if rows else None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn DuckDB's and the system's errors into ours; the message starts with what is read or written.

    Raises:
        TransientError: the disk is full or cannot be written.
        SettingError: memory does not suffice.
        ImplementationError: the SQL is wrong.
        SchemaError: the data cannot be read.
    """
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise SettingError(
            f"{what}: memory does not suffice; raise the memory limit ({_line(error)})"
        ) from error
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
        raise ImplementationError(f"{what}: {error}; report this mistake of the connector") from error
    except (duckdb.Error, OSError) as error:
        text = _line(error)
        if any(sign in text for sign in ("No space left", "File too large", "Disk quota", "Could not write")):
            raise TransientError(
                f"{what}: the disk is full ({text}); free space and run again; what had landed before stays"
            ) from error
        raise SchemaError(f"{what} cannot be read: {text}; bring a sound file") from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removesuffix(".")


def count_rows(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """How many staged rows are accepted, and how many rejected."""
    found: tuple[int, int] = first_row(
        con,
        f"SELECT count(*) FILTER ({REASONS} IS NULL), count({REASONS}) FROM {STAGED}",  # noqa: S608
    )
    return found


def write_table(con: duckdb.DuckDBPyConnection, contract: Table, folder: Path) -> None:
    """Write the accepted rows of the staged table, in month folders where it has an event time.

    The rows are ordered by event time and key, ties as they were read: the same input gives the
    same bytes.
    """
    folder.mkdir()
    names = ", ".join(quoted(column.name) for column in contract.columns)
    order = ", ".join(quoted(name) for name in (contract.event_time, *contract.key) if name)
    rows = f"SELECT {names} FROM {STAGED} WHERE {REASONS} IS NULL"  # noqa: S608 — quoted
    if contract.event_time is None:
        return _write(con.sql(f"{rows} ORDER BY {order}, rowid"), contract, folder)
    month = f"date_trunc('month', {quoted(contract.event_time)})"
    months = con.execute(
        f"SELECT DISTINCT {month} AS month FROM {STAGED} WHERE {REASONS} IS NULL ORDER BY month"  # noqa: S608
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
        f"SELECT ? AS \"table\", 'ingestion' AS stage, array_to_string({REASONS}, '; ') AS reason, {ROW} AS row "  # noqa: S608
        f"FROM {STAGED} WHERE {REASONS} IS NOT NULL ORDER BY rowid",
        params=[table],
    ).to_arrow_table()
    if rejected.num_rows:
        pq.write_table(rejected.cast(QUARANTINE_SCHEMA), target, compression="zstd")
