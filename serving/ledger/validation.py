"""Rows against their contract before they are appended: the types, and the rules that one row can break alone.

The rules are those that validation asks of landed tables, by the same SQL. Left to validation is what needs the other
rows: whether an item is known. A key that was seen before is for the ledger to decide.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from expectations.contracts.ledger import DOCUMENTS, OUTCOMES
from expectations.contracts.schema import Table
from expectations.contracts.shop_tables import EXPOSURES
from expectations.suites.referential_rules import cross_rules
from expectations.suites.rules import Rule, Settings, literal, quoted
from expectations.suites.schema_rules import contract_rules
from features.sources.staging import SQL_TYPES
from serving.ledger.values import UnfitError, cast, check_document

_OF_OUTCOMES = ("exposures.outcome_is_grade", "exposures.outcome_time_only_if_positive")
"""Rules of exposures that hold of an outcome by itself."""

_FEW = 10
"""So many rows are inserted one by one faster than as JSON."""
_ROW = "__row"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One row against its contract.

    Attributes:
        values: its columns in the contract's types, without the missing ones.
        reason: why it breaks its contract; empty: it does not.
    """

    values: Mapping[str, Any]
    reason: str = ""


class Validator:
    """Checks rows of one source; of use to several threads at once.

    The rules are prepared once, which takes DuckDB longer than all that it does with a row, and executed over tables
    that are filled and emptied again. Its optimizer is off: it would plan for the tables as they are now, empty.
    """

    def __init__(self, contracts: Mapping[str, Table], connection: duckdb.DuckDBPyConnection) -> None:
        """Prepare the rules.

        Args:
            contracts: the ledger's, with the source's extra columns.
            connection: where rules are computed, and nothing else.
        """
        self._contracts = contracts
        self._connection = connection
        self._alone = threading.Lock()
        connection.execute("SET threads = 1; PRAGMA disable_optimizer; CREATE TABLE clock (now TIMESTAMP)")
        for contract in contracts.values():
            _prepare(connection, contract)

    def check(self, table: str, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[Checked]:
        """Check rows of one table, in their order; what happens after `now` (naive UTC) is in the future."""
        checked = [self._cast(table, row) for row in rows]
        sound = {number: one.values for number, one in enumerate(checked) if not one.reason}
        for number, reason in self._broken(table, sound, now) if sound else ():
            checked[number] = Checked(values=checked[number].values, reason=reason)
        return checked

    def _broken(
        self, table: str, rows: Mapping[int, Mapping[str, Any]], now: datetime
    ) -> list[tuple[int, str]]:
        """Number and reason of the rows that break a rule."""
        contract, con = self._contracts[table], self._connection
        names = contract.schema.names
        with self._alone:
            con.execute("BEGIN")
            try:
                con.execute("INSERT INTO clock VALUES (?)", [now])
                if len(rows) <= _FEW:
                    marks = ", ".join("?" * (len(names) + 1))
                    values = [[number, *map(row.get, names)] for number, row in rows.items()]
                    con.executemany(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608
                else:
                    given = [
                        {_ROW: number, **{n: row[n] for n in names if n in row}}
                        for number, row in rows.items()
                    ]
                    filled = f"INSERT INTO {table} SELECT unnest(from_json(?, {_form(contract)}), recursive := true)"
                    con.execute(filled, [json.dumps(given, default=_as_json)])
                return con.execute(f"EXECUTE rules_of_{table}").fetchall()
            finally:
                con.execute("ROLLBACK")

    def _cast(self, table: str, row: Mapping[str, Any]) -> Checked:
        if not isinstance(row, Mapping):
            return Checked(
                values={}, reason=f"a row is an object of columns and values, not {type(row).__name__}"
            )
        contract, documents = self._contracts[table], DOCUMENTS.get(table, ())
        columns = {column.name for column in contract.columns}
        values: dict[str, Any] = {}
        reasons = []
        reasons += [
            f"{name}: {table} has no such column; declare it under extra in source.toml"
            for name in sorted(map(str, row.keys() - columns - set(documents)))
        ]
        for column in contract.columns:
            try:
                value = cast(column, row.get(column.name))
            except UnfitError as error:
                reasons.append(str(error))
                continue
            if value is not None:
                values[column.name] = value
        for name in documents:
            try:
                check_document(name, row.get(name))
            except UnfitError as error:
                reasons.append(str(error))
                continue
            if row.get(name) is not None:
                values[name] = row[name]
        return Checked(values=values, reason="; ".join(reasons))


def row_rules(contract: Table) -> list[Rule]:
    """The critical rules that one row can break without looking at others."""
    settings = Settings()
    rules = [*contract_rules(contract, settings), *cross_rules(contract, (), settings)]
    if contract.name == OUTCOMES.name:
        rules += [rule for rule in cross_rules(EXPOSURES, (), settings) if rule.name in _OF_OUTCOMES]
    return [rule for rule in rules if rule.per_row and rule.severity == "critical" and not rule.counts]


def _prepare(connection: duckdb.DuckDBPyConnection, contract: Table) -> None:
    """Make an empty table of a contract, and prepare the query of its broken rows: their numbers and reasons."""
    columns = ", ".join(f"{quoted(column.name)} {SQL_TYPES[column.type]}" for column in contract.columns)
    connection.execute(f"CREATE TABLE {contract.name} ({_ROW} BIGINT, {columns})")
    reasons = ", ".join(rule.reason for rule in row_rules(contract))
    connection.execute(
        f"PREPARE rules_of_{contract.name} AS SELECT * FROM ("  # noqa: S608 — SQL of ours
        f"SELECT {_ROW}, concat_ws('; ', {reasons}) AS reason FROM {contract.name} AS t) WHERE reason <> ''"
    )


def _form(contract: Table) -> str:
    """The columns of a table as DuckDB reads them from JSON: an SQL text."""
    fields = {column.name: SQL_TYPES[column.type] for column in contract.columns}
    return literal(json.dumps([{_ROW: "BIGINT", **fields}]))


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no value of a contract")
