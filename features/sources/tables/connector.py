"""Connector for any shop: Parquet, CSV or SQL that follows the contracts, mapped by `source.toml`.

Each contract column comes from a constant, from the column that `columns` names, or from the
column of its own name. Columns that the contract does not know are left out.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb

from expectations.contracts.file_format import CSV_SETTINGS, FileFormat
from expectations.contracts.schema import Column, Table
from expectations.contracts.source import Source, TableSource
from expectations.errors import SchemaError, SettingError
from expectations.suites.rules import quoted
from features.sources.staging import REASONS, ROW, SQL_TYPES, STAGED, Reading, explained, first_row
from features.sources.tables import csv_files, database, files
from features.sources.tables.casting import Casting, cast_rows
from features.sources.tables.files import literal_path
from features.sources.tables.number_text import declared_form, find_form

_RAW = "__raw"


def readings(source: Source, scratch: Path) -> dict[str, Reading]:
    """The tables of a shop that brings the contract's tables.

    `scratch` is an empty folder for copies of query results and files, kept until the tables are staged.

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
            if declared.location is None and declared.query is None:
                continue  # of the ledger alone
            if declared.location is not None:
                kind, paths = files.find_files(name, declared.location)
                with explained(f"{name}: {declared.location}"):
                    mark = files.identity(paths)
            else:
                if connected is None:
                    connected = stack.enter_context(database.open_database(source.database_url_env))
                kind, paths = "parquet", [scratch / f"{name}.parquet"]
                mark = database.copy_query(connected, name, str(declared.query), paths[0])
            stage = partial(
                _stage, contract=contracts[name], declared=declared, kind=kind, paths=paths, scratch=scratch
            )
            found[name] = Reading(identity=mark, stage=stage)
    return found


def _stage(
    con: duckdb.DuckDBPyConnection,
    *,
    contract: Table,
    declared: TableSource,
    kind: str,
    paths: list[Path],
    scratch: Path,
) -> None:
    named = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
    form = declared.format
    with explained(f"{contract.name}: {named}"):
        if kind == "parquet":
            needless = form.declared(*CSV_SETTINGS)
            if needless:
                raise SettingError(
                    f"[tables.{contract.name}.format] {needless[0]} is of CSV; {named} is Parquet"
                )
            con.read_parquet([literal_path(path) for path in paths], union_by_name=True).create_view(_RAW)
            _cast_rows(con, contract, declared)
        else:
            wanted = {declared.columns.get(column.name, column.name) for column in contract.columns}
            csv_files.read_csv(
                con, _RAW, paths, table=contract.name, form=form, wanted=wanted, scratch=scratch
            )
            _cast_rows(con, contract, declared)
            csv_files.stage_broken_lines(con, contract.name, paths)


def stage_texts(con: duckdb.DuckDBPyConnection, contract: Table, copy: Path) -> None:
    """Stage a Parquet file of the contract's columns as texts, as programs write them (`database.copy_query`)."""
    con.read_parquet(literal_path(copy)).create_view(_RAW)
    _cast_rows(con, contract, TableSource(format=FileFormat(decimal=".")))
    con.execute(f"DROP VIEW {_RAW}")


def _cast_rows(con: duckdb.DuckDBPyConnection, contract: Table, declared: TableSource) -> None:
    """Cast the rows of the relation of raw rows to a contract: make the table `staged`.

    Raises:
        SchemaError: a required, mapped or extra column is missing, or its numbers can be read in two ways.
        SettingError: a constant does not have its column's type.
    """
    described = con.execute(f"DESCRIBE {_RAW}").fetchall()
    raw_types = {str(name): str(raw_type) for name, raw_type, *_ in described}
    selected: list[str] = []
    castings: list[Casting] = []
    parameters: list[object] = []
    for column in contract.columns:
        name, sql_type = quoted(column.name), SQL_TYPES[column.type]
        if column.name in declared.constants:
            parameters.append(_constant(con, contract, column, declared))
            selected.append(f"CAST(? AS {sql_type}) AS {name}")
            continue
        raw = _raw_column(contract, column, declared, raw_types)
        if raw is None:
            selected.append(f"CAST(NULL AS {sql_type}) AS {name}")
            continue
        casting = Casting(
            column=column, raw=f"{_RAW}.{quoted(raw)}", raw_type=raw_types[raw], form=declared.format
        )
        castings.append(_with_number(con, contract, casting))
        selected.append(f"{casting.at('value')} AS {name}")
    problems = ", ".join(casting.problem for casting in castings)
    reasons = f"list_filter(CAST([{problems}] AS VARCHAR[]), lambda x: x IS NOT NULL)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE {STAGED} AS "  # noqa: S608 — quoted
        f"SELECT {', '.join(selected)}, nullif({reasons}, []) AS {REASONS}, "
        f"CASE WHEN {REASONS} IS NOT NULL THEN CAST(to_json(__record) AS VARCHAR) END AS {ROW} "
        f"FROM ({cast_rows(_RAW, castings, _RAW)})",
        parameters,
    )


def _with_number(con: duckdb.DuckDBPyConnection, contract: Table, casting: Casting) -> Casting:
    """A casting that knows how its column writes numbers."""
    column = casting.column
    if not casting.is_text or column.type not in ("number", "integer", "boolean"):
        return casting
    form = declared_form(casting.form)
    if form is None:
        form = find_form(con, _RAW, casting.text, contract.name, column.name)
    return replace(casting, number=form)


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
    like = next((name for name in found if _folded(name) == _folded(raw)), "the shop's column")
    raise SchemaError(
        f"{contract.name}: {problem}; found {', '.join(found) or 'none'}. In source.toml, map it: "
        f'[tables.{contract.name}] columns = {{ {column.name} = "{like}" }}'
    )


def _folded(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _constant(
    con: duckdb.DuckDBPyConnection, contract: Table, column: Column, declared: TableSource
) -> object:
    """A declared constant, cast to its column's type."""
    given = declared.constants[column.name]
    value = "|".join(map(str, given)) if isinstance(given, list) else str(given)
    casting = Casting(column=column, raw="given", raw_type="VARCHAR", form=FileFormat())
    rows = cast_rows("(SELECT ? AS given)", [casting], "NULL")
    sql = f"SELECT {casting.at('value')}, {casting.problem} FROM ({rows})"  # noqa: S608 — SQL of ours
    typed, problem = first_row(con, sql, [value])
    if problem:
        raise SettingError(f"[tables.{contract.name}] constants: {problem}; correct it in source.toml")
    return typed
