"""Rows against their contract before they are appended: the types, and the rules that one row can break alone.

The rules are those that validation asks of landed tables, by the same SQL. Left to validation is what needs the other
rows: whether an item is known. A key that was seen before is for the ledger to decide.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from expectations.contracts.ledger import DOCUMENTS, OUTCOMES
from expectations.contracts.schema import Table
from expectations.contracts.shop_tables import EXPOSURES
from expectations.suites.referential_rules import cross_rules
from expectations.suites.rules import Rule, Settings, literal
from expectations.suites.schema_rules import contract_rules
from features.sources.staging import SQL_TYPES
from serving.ledger.values import UnfitError, cast, check_document

_OF_OUTCOMES = ("exposures.outcome_is_grade", "exposures.outcome_time_only_if_positive")
"""Rules of exposures that hold of an outcome by itself."""


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
    """Checks rows of one source; of use to several threads at once."""

    def __init__(self, contracts: Mapping[str, Table], connection: duckdb.DuckDBPyConnection) -> None:
        """Prepare the rules.

        Args:
            contracts: the ledger's, with the source's extra columns.
            connection: where rules are computed; each check works in a cursor of its own.
        """
        self._contracts = contracts
        self._connection = connection
        self._queries = {name: _query(contract) for name, contract in contracts.items()}

    def check(self, table: str, rows: Sequence[Mapping[str, Any]], now: datetime) -> list[Checked]:
        """Check rows of one table, in their order; what happens after `now` (naive UTC) is in the future."""
        checked = [self._cast(table, row) for row in rows]
        sound = [number for number, one in enumerate(checked) if not one.reason]
        if not sound:
            return checked
        documents = DOCUMENTS.get(table, ())
        given = [
            {"__row": number, **{n: v for n, v in checked[number].values.items() if n not in documents}}
            for number in sound
        ]
        parameters = {"rows": json.dumps(given, default=_as_json), "now": now.isoformat()}
        with self._connection.cursor() as cursor:
            broken = cursor.execute(self._queries[table], parameters).fetchall()
        for number, reason in broken:
            checked[number] = Checked(values=checked[number].values, reason=reason)
        return checked

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


def _query(contract: Table) -> str:
    """SQL of the broken rows' numbers and reasons, of the parameters `rows` (JSON) and `now`."""
    fields = {column.name: SQL_TYPES[column.type] for column in contract.columns}
    form = literal(json.dumps([{"__row": "BIGINT", **fields}]))
    reasons = ", ".join(rule.reason for rule in row_rules(contract))
    return (
        "WITH clock AS (SELECT CAST($now AS TIMESTAMP) AS now), "  # noqa: S608 — SQL of ours
        f"t AS (SELECT unnest(from_json(CAST($rows AS VARCHAR), {form}), recursive := true)) "
        f"SELECT * FROM (SELECT __row, concat_ws('; ', {reasons}) AS reason FROM t) "
        "WHERE reason <> '' ORDER BY __row"
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no value of a contract")
