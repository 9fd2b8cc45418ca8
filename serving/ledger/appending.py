"""How rows get into a table, or into quarantine: once each, by their id.

Two transactions that bring one id at the same time: the second waits until the first has ended, and compares.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from expectations.contracts.ledger import DOCUMENTS, EXTRA, LEDGER_TABLES, RECORDED_AT, SCHEMA, SEQUENCE
from expectations.errors import TransientError
from serving.ledger.tables import QUARANTINE, TABLES
from serving.ledger.validation import Checked

Status = Literal["appended", "unchanged", "conflict", "invalid", "erased"]
"""What became of a row: recorded now; recorded before with the same content; refused because it was recorded before
with other content, because it breaks its contract, or because its shopper was erased."""


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """What became of one row.

    Attributes:
        id: its id; None where it has none.
        status: see `Status`.
        reason: why it was refused; empty: it was not.
    """

    id: str | None
    status: Status
    reason: str = ""


def append_rows(
    connection: sa.Connection, table: str, rows: Mapping[int, Mapping[str, Any]]
) -> dict[int, RowResult]:
    """Append sound rows, by number; of those with one id in a batch, the first."""
    (key,) = TABLES[table].primary_key.columns.keys()
    as_stored = {number: _stored(table, row) for number, row in rows.items()}
    first: dict[str, int] = {}
    for number, row in rows.items():
        first.setdefault(row[key], number)
    # in one order, or two transactions with the same ids would wait for each other
    batch = [as_stored[first[name]] for name in sorted(first)]
    new = set(_insert(connection, table, batch)) if batch else set()
    differing = _compare(connection, table, [row for row in batch if row[key] not in new])
    results = {}
    for number, row in rows.items():
        name = row[key]
        if first[name] == number and name in new:
            results[number] = RowResult(id=name, status="appended")
            continue
        columns = differing.get(name, [])
        if first[name] != number:
            columns = _differing(as_stored[first[name]], as_stored[number]) or columns
        results[number] = _again(table, key, name, columns)
    return results


def _stored(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON of its table's columns; what the contract has beyond them goes into `extra`."""
    own = {*LEDGER_TABLES[table].schema.names, *DOCUMENTS.get(table, ())}
    values = {name: v.isoformat() if isinstance(v, datetime) else v for name, v in row.items()}
    known = {name: value for name, value in values.items() if name in own}
    extra = {name: value for name, value in values.items() if name not in own}
    return {**known, EXTRA: extra} if extra else known


def _given(table: str) -> str:
    """SQL of rows of a table that the parameter `rows` holds as JSON."""
    return f"jsonb_populate_recordset(NULL::{SCHEMA}.{table}, CAST(:rows AS jsonb))"


def _insert(connection: sa.Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Insert the rows whose id is new, and return these; one that another transaction inserts is waited for."""
    (key,) = TABLES[table].primary_key.columns.keys()
    names = [c.name for c in TABLES[table].columns if c.name not in (SEQUENCE, RECORDED_AT)]
    columns = ", ".join(f'"{name}"' for name in names)
    statement = sa.text(
        f"INSERT INTO {SCHEMA}.{table} ({columns}) SELECT {columns} FROM {_given(table)} "  # noqa: S608
        f"ON CONFLICT ({key}) DO NOTHING RETURNING {key}"
    )
    return list(connection.scalars(statement, {"rows": json.dumps(rows)}))


def _compare(
    connection: sa.Connection, table: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Id -> columns whose content is another than what is recorded.

    Raises:
        TransientError: a row was removed at this very moment.
    """
    if not rows:
        return {}
    (key,) = TABLES[table].primary_key.columns.keys()
    ours = f"- ARRAY['{SEQUENCE}', '{RECORDED_AT}']"
    statement = sa.text(
        f"SELECT s.{key} AS id, ARRAY(SELECT a.key FROM jsonb_each(to_jsonb(s) {ours}) AS a "  # noqa: S608
        f"JOIN jsonb_each(to_jsonb(g) {ours}) AS b USING (key) WHERE a.value <> b.value ORDER BY a.key) AS differing "
        f"FROM {SCHEMA}.{table} AS s JOIN {_given(table)} AS g USING ({key})"
    )
    told = connection.execute(statement, {"rows": json.dumps(rows)})
    found = {row.id: row.differing for row in told}
    if len(found) < len(rows):
        raise TransientError(f"rows of {table} were removed while they were sent again; send them once more")
    return found


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def _again(table: str, key: str, name: str, columns: Sequence[str]) -> RowResult:
    if not columns:
        return RowResult(id=name, status="unchanged")
    reason = (
        f"{key}: '{name}' was recorded in {table} before with another {', '.join(columns)}; what is recorded stays: "
        f"send a new {key} where it is another row"
    )
    return RowResult(id=name, status="conflict", reason=reason)


def refusal(checked: Checked, key: str) -> RowResult | None:
    """What becomes of a row that breaks its contract; None where it does not."""
    if not checked.reason:
        return None
    return RowResult(id=checked.values.get(key), status="invalid", reason=checked.reason)


def keep_refused(
    connection: sa.Connection,
    table: str,
    rows: Sequence[Any],
    checked: Sequence[Checked],
    results: Sequence[RowResult],
) -> None:
    """Write the refused rows to quarantine; one that comes again is counted. Rows of the erased are not kept."""
    kept: dict[str, dict[str, Any]] = {}
    for row, one, result in zip(rows, checked, results, strict=True):
        if result.status not in ("invalid", "conflict"):
            continue
        named = {str(name): value for name, value in row.items()} if isinstance(row, Mapping) else {}
        text = json.dumps(named or row, default=str, sort_keys=True)
        content = hashlib.sha256(f"{table} {result.status} {text}".encode()).hexdigest()
        ids = {name: one.values.get(name, named.get(name)) for name in ("user_id", "exposure_id")}
        entry = kept.setdefault(
            content,
            {
                "table_name": table,
                "status": result.status,
                "reason": _plain(result.reason),
                "row": text,
                "content": content,
                "times": 0,
                **{name: _plain(value) for name, value in ids.items()},
            },
        )
        entry["times"] += 1
    if not kept:
        return
    new = insert(QUARANTINE).values([kept[content] for content in sorted(kept)])
    again = {"times": QUARANTINE.c.times + new.excluded.times}
    connection.execute(new.on_conflict_do_update(index_elements=["content"], set_=again))


def _plain(value: object) -> str | None:
    """A value as PostgreSQL's text can hold it."""
    return None if value is None else str(value).replace("\0", "").encode(errors="replace").decode()
