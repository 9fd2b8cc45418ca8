"""A shop's SQL database: the result of a query, copied once into a Parquet file of texts.

A database has no cheap mark of its content, so each run reads the query's result and hashes it.
Values become texts here and are cast to the contract's types by the rules of every other source.
The hash does not depend on the order of the rows, which a query without ORDER BY does not promise.
Rows come through SQLAlchemy and not DuckDB's database scanners: those are extensions that must be fetched.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from expectations.errors import RecommenderError, SchemaError, SettingError, TransientError
from expectations.suites.engine import open_duckdb
from features.sources.tables.files import literal_path

_ROWS_AT_ONCE = 50_000
_SNAPSHOT_DIALECTS = ("postgresql", "mysql", "mariadb")


@contextmanager
def open_database(url_env: str | None) -> Iterator[sqlalchemy.Connection]:
    """Connect to the database whose SQLAlchemy URL an environment variable holds.

    All queries of one connection see one state of the database, where it offers that.

    Raises:
        SettingError: the variable is not set, is no URL, or its driver is not installed.
        SchemaError: a SQLite file does not exist.
        TransientError: the database cannot be reached.
    """
    url = _url(url_env)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise SchemaError(f"{_address(url)}: the file does not exist; correct the URL in {url_env}")
    try:
        engine = sqlalchemy.create_engine(url)
    except (SQLAlchemyError, ImportError) as error:
        raise SettingError(
            f"{url_env}: no driver for {url.drivername} ({error.__class__.__name__}); install it"
        ) from None
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise TransientError(
            f"{_address(url)} cannot be reached: {_told(error, url)}; start it or correct the URL in {url_env}"
        ) from None
    try:
        if url.get_backend_name() in _SNAPSHOT_DIALECTS:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection
    finally:
        connection.close()
        engine.dispose()


def copy_query(connection: sqlalchemy.Connection, table: str, query: str, target: Path) -> str:
    """Write the result of one SELECT as Parquet, every column text, and return its identity.

    Raises:
        SchemaError: the query fails, or names a column twice.
        TransientError: the connection was lost, or the disk is full.
    """
    url = connection.engine.url
    try:
        # Without parameters, a driver takes the "%" of a LIKE for itself and not for a placeholder.
        options = {"stream_results": True, "no_parameters": True}
        result = connection.execution_options(**options).exec_driver_sql(query)
        columns = list(result.keys())
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise SchemaError(f"{table}: the query gives the column {twice[0]!r} twice; name them apart")
        _write(result, columns, target)
    except RecommenderError:
        raise
    except SQLAlchemyError as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise TransientError(
                f"{table}: the connection to {_address(url)} was lost ({_told(error, url)}); run again"
            ) from None
        raise SchemaError(
            f"{table}: the query fails in {_address(url)}: {_told(error, url)}; "
            f"correct query in [tables.{table}]"
        ) from None
    except OSError as error:
        raise TransientError(f"{table}: {target.parent} cannot be written ({error}); free space") from error
    with open_duckdb(None) as con:
        found = con.execute(
            "SELECT count(*), bit_xor(hash(__row)), sum(CAST(hash(__row) AS HUGEINT)) "
            "FROM read_parquet(?) AS __row",
            [literal_path(target)],
        ).fetchone()
    return str((columns, found))


def _address(url: sqlalchemy.URL) -> str:
    """The URL without its password, and without the query, which may hold another."""
    return url.set(query={}).render_as_string()


def _told(error: BaseException, url: sqlalchemy.URL) -> str:
    """The first line of an error, without the password."""
    line = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return line.replace(str(url.password), "***") if url.password else line


def _url(url_env: str | None) -> sqlalchemy.URL:
    text = os.environ.get(url_env or "")
    if not text:
        raise SettingError(f"the environment variable {url_env} is not set; give it the database's URL")
    try:
        return sqlalchemy.make_url(text)
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise SettingError(
            f"{url_env} does not hold an SQLAlchemy URL; write postgresql://user:password@host/database"
        ) from None


def _write(result: "sqlalchemy.CursorResult[Any]", columns: list[str], target: Path) -> None:
    schema = pa.schema([(name, pa.string()) for name in columns])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for rows in result.partitions(_ROWS_AT_ONCE):
            values = zip(*rows, strict=True)
            arrays = [pa.array([_text(value) for value in column], pa.string()) for column in values]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _text(value: Any) -> str | None:
    """A value of any database as the text that casting reads."""
    match value:
        case None | str():
            text = value
        case float() | Decimal() if math.isnan(value):
            text = None
        case float() if value.is_integer() and abs(value) < 2**53:
            text = str(int(value))
        case Decimal():
            text = format(value, "f")
        case datetime() | date():
            text = value.isoformat()
        case bool():
            text = str(value).lower()
        case list() | tuple() | dict():
            text = json.dumps(value, ensure_ascii=False, default=str)
        case bytes() | bytearray() | memoryview():
            text = bytes(value).decode("utf-8", errors="replace")
        case _:
            text = str(value)
    return text
