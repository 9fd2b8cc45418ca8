"""Connector for any shop: Parquet, CSV or SQL that follows the contracts, mapped by `source.toml`.

Each contract column comes from a constant, from the column that `columns` names, or from the
column of its own name. Columns that the contract does not know are left out.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import duckdb

from expectations.contracts.schema import Column, Table
from expectations.contracts.source import Source, TableSource
from expectations.errors import SchemaError, SettingError
from expectations.suites.rules import quoted
from features.sources.staging import REASON, ROW, SQL_TYPES, STAGED, Reading, explained, first_row
from features.sources.tables import database, files
from features.sources.tables.casting import cast_column

_RAW = "__raw"


def readings(source: Source, scratch: Path) -> dict[str, Reading]:
    """The tables of a shop that brings the contract's tables.

    `scratch` is an empty folder for copies of query results, kept until the tables are staged.

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
                kind, paths = files.find_files(name, declared.location)
                with explained(f"{name}: {declared.location}"):
                    mark = files.identity(paths)
            else:
                if connected is None:
                    connected = stack.enter_context(database.open_database(source.database_url_env))
                kind, paths = "parquet", [scratch / f"{name}.parquet"]
                mark = database.copy_query(connected, name, str(declared.query), paths[0])
            stage = partial(_stage, contract=contracts[name], declared=declared, kind=kind, paths=paths)
            found[name] = Reading(identity=mark, stage=stage)
    return found


def _stage(
    con: duckdb.DuckDBPyConnection, *, contract: Table, declared: TableSource, kind: str, paths: list[Path]
) -> None:
    named = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
    with explained(f"{contract.name}: {named}"):
        if kind == "parquet":
            con.read_parquet([str(path) for path in paths], union_by_name=True).create_view(_RAW)
            _cast_rows(con, contract, declared)
        else:
            files.open_csv(con, _RAW, paths)
            _cast_rows(con, contract, declared)
            files.stage_broken_lines(con, contract.name, paths)


def _cast_rows(con: duckdb.DuckDBPyConnection, contract: Table, declared: TableSource) -> None:
    """Cast the rows of the view of raw rows to a contract: make the table `staged`.

    Raises:
        SchemaError: a required, mapped or extra column is missing.
        SettingError: a constant does not have its column's type.
    """
    described = con.execute(f"DESCRIBE {_RAW}").fetchall()
    raw_types = {str(name): str(raw_type) for name, raw_type, *_ in described}
    selected, reasons, parameters = [], [], []
    for column in contract.columns:
        name = quoted(column.name)
        if column.name in declared.constants:
            parameters.append(_constant(con, contract, column, declared))
            selected.append(f"CAST(? AS {SQL_TYPES[column.type]}) AS {name}")
            continue
        raw = _raw_column(contract, column, declared, raw_types)
        if raw is None:
            selected.append(f"CAST(NULL AS {SQL_TYPES[column.type]}) AS {name}")
            continue
        value, problem = cast_column(f"{_RAW}.{quoted(raw)}", raw_types[raw], column)
        selected.append(f"{value} AS {name}")
        reasons.append(problem)
    reason = f"nullif(concat_ws('; ', {', '.join(reasons)}), '')" if reasons else "CAST(NULL AS VARCHAR)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {STAGED} AS SELECT {', '.join(selected)}, "  # noqa: S608 — quoted
        f"{reason} AS {REASON}, "
        f"CASE WHEN {REASON} IS NOT NULL THEN CAST(to_json({_RAW}) AS VARCHAR) END AS {ROW} "
        f"FROM {_RAW}",
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
        f"{contract.name}: {problem}; found {', '.join(found) or 'none'}. In source.toml, map it: "
        f'[tables.{contract.name}] columns = {{ {column.name} = "the shop\'s column" }}'
    )


def _constant(
    con: duckdb.DuckDBPyConnection, contract: Table, column: Column, declared: TableSource
) -> object:
    """A declared constant, cast to its column's type."""
    given = declared.constants[column.name]
    value = "|".join(map(str, given)) if isinstance(given, list) else str(given)
    selected = ", ".join(cast_column("given", "VARCHAR", column))
    typed, problem = first_row(con, f"SELECT {selected} FROM (SELECT ? AS given)", [value])  # noqa: S608
    if problem:
        raise SettingError(f"[tables.{contract.name}] constants: {problem}; correct it in source.toml")
    return typed
