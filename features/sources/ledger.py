"""Connector for the ledger: what the service recorded, alone or beside what a shop's files say.

Each ingestion reads all rows of one snapshot, so none is skipped and none is read twice: a transaction that commits
late, with numbers below those that were read before, is in the next snapshot. A version's identity is the rows'
content, so an ingestion that finds nothing new writes nothing.

Files and ledger are united by the table's key: where both have a row, that of the file stays, which the shop may have
corrected. An exposure without an outcome of its own gets the best of its outcomes in the ledger, the earliest of
equals. One that only the ledger has, and that no outcome came of, has outcome 0, which counts once its
`outcome_window` has passed.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import duckdb
import sqlalchemy

from expectations.contracts.ledger import EXTRA, OUTCOMES, SCHEMA, URL_VARIABLE
from expectations.contracts.schema import Table
from expectations.contracts.source import Source
from expectations.storage.hashes import fingerprint
from expectations.suites.rules import literal, quoted
from features.sources.staging import REASONS, STAGED, Reading, explained
from features.sources.tables import database
from features.sources.tables.connector import stage_texts

_RECORDED, _OUTCOMES = "recorded", "recorded_outcomes"


def with_ledger(source: Source, found: Mapping[str, Reading], scratch: Path) -> dict[str, Reading]:
    """The tables of a shop, those that its declaration reads from the ledger united with it.

    Args:
        source: the shop's declaration.
        found: what its connector found.
        scratch: folder for copies of the ledger's tables, kept until the tables are staged.

    Raises:
        SettingError: RECOMMENDER_LEDGER_URL is not set or wrong.
        TransientError: the database cannot be reached.
    """
    named = [name for name, declared in source.tables.items() if declared.ledger]
    readings = dict(found)
    if not named:
        return readings
    contracts = {name: contract for name, contract in source.contracts().items() if name in named}
    if "exposures" in named:
        contracts[OUTCOMES.name] = OUTCOMES
    with database.open_database(URL_VARIABLE) as connection:  # one snapshot of all tables
        copies = {name: scratch / f"ledger_{name}.parquet" for name in contracts}
        marks = {
            name: database.copy_query(connection, name, _query(connection, contract), copies[name])
            for name, contract in contracts.items()
        }
    for name in named:
        own = [marks[name], marks[OUTCOMES.name]] if name == "exposures" else [marks[name]]
        other = found.get(name)
        stage = partial(_stage, contract=contracts[name], copies=copies, other=other)
        readings[name] = Reading(
            identity=fingerprint("ledger", other.identity if other else None, own), stage=stage
        )
    return readings


def _query(connection: sqlalchemy.Connection, contract: Table) -> str:
    """SQL of a table's rows in the contract's columns; those that the ledger does not have are null."""
    inspector = sqlalchemy.inspect(connection)
    made = inspector.has_table(contract.name, schema=SCHEMA)
    there = {c["name"] for c in inspector.get_columns(contract.name, schema=SCHEMA)} if made else set()

    def value(name: str, *, extra: bool) -> str:
        if not made or (name not in there and not extra):
            return "NULL"
        return f"{EXTRA} ->> {literal(name)}" if extra else quoted(name)

    columns = ", ".join(
        f"{value(column.name, extra=bool(column.extra))} AS {quoted(column.name)}"
        for column in contract.columns
    )
    return f"SELECT {columns} FROM {SCHEMA}.{contract.name}" if made else f"SELECT {columns} WHERE false"  # noqa: S608


def _stage(
    con: duckdb.DuckDBPyConnection, *, contract: Table, copies: Mapping[str, Path], other: Reading | None
) -> None:
    """Make the table `staged` of the ledger's rows and those of another reading."""
    with explained(f"{contract.name}: the ledger"):
        if contract.name == "exposures":
            _rename(con, OUTCOMES, copies, _OUTCOMES)
        _rename(con, contract, copies, _RECORDED)
        if contract.name == "exposures":
            _join_outcomes(con, _RECORDED)
            con.execute(f"UPDATE {_RECORDED} SET outcome = 0 WHERE outcome IS NULL AND impressions IS NULL")  # noqa: S608
    if other is None:
        con.execute(f"ALTER TABLE {_RECORDED} RENAME TO {STAGED}")
        return
    other.stage(con)
    with explained(f"{contract.name}: the ledger"):
        if contract.name == "exposures":
            _join_outcomes(con, STAGED)
        same = " AND ".join(f"s.{quoted(name)} = r.{quoted(name)}" for name in contract.key)
        con.execute(
            f"INSERT INTO {STAGED} SELECT * FROM {_RECORDED} AS r "  # noqa: S608 — names of ours
            f"WHERE NOT EXISTS (SELECT 1 FROM {STAGED} AS s WHERE {same} AND s.{REASONS} IS NULL)"
        )
        con.execute(f"DROP TABLE {_RECORDED}")


def _rename(con: duckdb.DuckDBPyConnection, contract: Table, copies: Mapping[str, Path], name: str) -> None:
    """Stage the copy of a ledger's table under another name than `staged`."""
    stage_texts(con, contract, copies[contract.name])
    con.execute(f"ALTER TABLE {STAGED} RENAME TO {name}")


def _join_outcomes(con: duckdb.DuckDBPyConnection, table: str) -> None:
    """Give exposures that have no outcome of their own the best one that the ledger has."""
    con.execute(
        f"UPDATE {table} SET outcome = best.outcome, outcome_timestamp = best.outcome_timestamp, "  # noqa: S608
        f"outcome_value = coalesce({table}.outcome_value, best.outcome_value) FROM ("
        "SELECT exposure_id, outcome, outcome_timestamp, outcome_value "
        f"FROM {_OUTCOMES} WHERE {REASONS} IS NULL QUALIFY row_number() OVER ("
        "PARTITION BY exposure_id ORDER BY outcome DESC, outcome_timestamp NULLS LAST, outcome_id) = 1"
        f") AS best WHERE {table}.exposure_id = best.exposure_id AND {table}.outcome IS NULL "
        f"AND {table}.impressions IS NULL AND {table}.{REASONS} IS NULL"
    )
