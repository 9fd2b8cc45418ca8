"""Connector for any shop: Parquet, CSV or SQL that follows the contracts, mapped by `source.toml`.

Each contract column comes from a constant, from the column that `columns` names, or from the
column of its own name. Columns that the contract does not know are left out.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import duckdb

from expectations.contracts.schema import Column, Table
from expectations.contracts.source import Source, TableSource
from expectations.errors import SchemaError, SettingError
from features.sources.staging import (
    REASON,
    ROW,
    SQL_TYPES,
    STAGED,
    Reading,
    explained,
    first_row,
    identifier,
)
from features.sources.tables import database, files
from features.sources.tables.casting import cast_column

_RAW = "__raw"


def readings(source: Source, scratch: Path) -> dict[str, Reading]:
    """The tables of a shop that brings the contract's tables.

    Args:
        source: the shop's declaration.
        scratch: an empty folder for copies of query results, kept until the tables are staged.

    Raises:
        SchemaError: files are missing or unreadable, or a query fails.
        SettingError: the database's variable is not set or wrong.
        TransientError: the database cannot be reached.
    """
    contracts = source.contracts()
    found = {}
    with ExitStack() as stack:
        connected = None
        for name, declared in source.tables.items():
            if declared.location is not None:
                found[name] = _from_files(contracts[name], declared, declared.location)
                continue
            if connected is None:
                connected = stack.enter_context(database.open_database(_url_env(source)))
            target = scratch / f"{name}.parquet"
            mark = database.copy_query(connected, name, str(declared.query), target)
            stage = partial(_stage_parquet, contract=contracts[name], declared=declared, paths=[target])
            found[name] = Reading(identity=mark, stage=stage)
    return found


def _url_env(source: Source) -> str:
    if source.database_url_env is None:
        raise SettingError(f"source {source.name}: a table has a query, so [database] url_env is needed")
    return source.database_url_env


def _from_files(contract: Table, declared: TableSource, location: str) -> Reading:
    kind, paths = files.find_files(contract.name, location)
    with explained(f"{contract.name}: {location}"):
        mark = files.identity(paths)
    stage = _stage_parquet if kind == "parquet" else _stage_csv
    return Reading(identity=mark, stage=partial(stage, contract=contract, declared=declared, paths=paths))


def _stage_parquet(
    con: duckdb.DuckDBPyConnection, *, contract: Table, declared: TableSource, paths: list[Path]
) -> None:
    with explained(f"{contract.name}: {_named(paths)}"):
        files.open_parquet(con, _RAW, paths)
        stage_view(con, _RAW, contract, declared)


def _stage_csv(
    con: duckdb.DuckDBPyConnection, *, contract: Table, declared: TableSource, paths: list[Path]
) -> None:
    with explained(f"{contract.name}: {_named(paths)}"):
        files.open_csv(con, _RAW, paths)
        stage_view(con, _RAW, contract, declared)
        files.stage_broken_lines(con, contract.name, paths)


def stage_view(con: duckdb.DuckDBPyConnection, view: str, contract: Table, declared: TableSource) -> None:
    """Cast the rows of a view to a contract: make the table `staged`.

    Raises:
        SchemaError: a required, mapped or extra column is missing.
        SettingError: a constant does not have its column's type.
    """
    described = con.execute(f"DESCRIBE {identifier(view)}").fetchall()
    raw_types = {str(name): str(raw_type) for name, raw_type, *_ in described}
    selected, reasons, parameters = [], [], []
    for column in contract.columns:
        name = identifier(column.name)
        if column.name in declared.constants:
            parameters.append(_constant(con, contract, column, declared))
            selected.append(f"CAST(? AS {SQL_TYPES[column.type]}) AS {name}")
            continue
        raw = _raw_column(contract, column, declared, raw_types)
        if raw is None:
            selected.append(f"CAST(NULL AS {SQL_TYPES[column.type]}) AS {name}")
            continue
        cast = cast_column(f"{_RAW}.{identifier(raw)}", raw_types[raw], column)
        selected.append(f"{cast.value} AS {name}")
        reasons.append(cast.reason)
    reason = f"nullif(concat_ws('; ', {', '.join(reasons)}), '')" if reasons else "CAST(NULL AS VARCHAR)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {STAGED} AS SELECT {', '.join(selected)}, "  # noqa: S608 — quoted
        f"{reason} AS {REASON}, "
        f"CASE WHEN {REASON} IS NOT NULL THEN CAST(to_json({_RAW}) AS VARCHAR) END AS {ROW} "
        f"FROM {identifier(view)} AS {_RAW}",
        parameters,
    )


def _raw_column(
    contract: Table, column: Column, declared: TableSource, found: Mapping[str, str]
) -> str | None:
    """The shop's column behind a contract's column; None where an optional one is not brought."""
    raw = declared.columns.get(column.name, column.name)
    if raw in found:
        return raw
    if column.name in declared.columns:
        problem = f"no column {raw!r}, from which columns takes {column.name}"
    elif column.extra:
        problem = f"no column {raw!r}, which extra declares"
    elif column.required:
        problem = f"no column {raw!r}, which is required ({column.description})"
    else:
        return None
    raise SchemaError(
        f"{contract.name}: {problem}; found {_listed(found)}. In source.toml, map it: "
        f'[tables.{contract.name}] columns = {{ {column.name} = "the shop\'s column" }}'
    )


def _constant(
    con: duckdb.DuckDBPyConnection, contract: Table, column: Column, declared: TableSource
) -> object:
    """A declared constant, cast to its column's type."""
    given = declared.constants[column.name]
    value = "|".join(map(str, given)) if isinstance(given, list) else str(given)
    cast = cast_column("given", "VARCHAR", column)
    sql = f"SELECT {cast.value}, {cast.reason} FROM (SELECT ? AS given)"  # noqa: S608 — a column's name
    typed, problem = first_row(con, sql, [value])
    if problem:
        raise SettingError(f"[tables.{contract.name}] constants: {problem}; correct it in source.toml")
    return typed


def _named(paths: list[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
