"""Leaving out the shoppers who were erased, whatever a shop's files still have of them."""

import json
import re
from collections.abc import Iterator

import duckdb
import pyarrow as pa

from expectations.contracts.schema import Table
from expectations.storage.erasures import Erased
from features.sources.staging import REASONS, ROW, STAGED

_BETWEEN_VALUES = re.compile(r"[\s,;|\"'=]+")


def leave_out(con: duckdb.DuckDBPyConnection, contract: Table, erased: Erased) -> int:
    """Delete the rows of erased shoppers from the staged table, and say how many.

    A rejected row may have no `user_id` that could be read: one that holds the id in any value is left out.
    """
    if not erased.users or "user_id" not in contract.schema.names:
        return 0
    users = con.execute(f"SELECT DISTINCT user_id FROM {STAGED} WHERE user_id IS NOT NULL").fetchall()  # noqa: S608
    gone = erased.among(user for (user,) in users)
    rejected = con.execute(
        f"SELECT rowid, {ROW} FROM {STAGED} WHERE {REASONS} IS NOT NULL AND user_id IS NULL"  # noqa: S608
    ).fetchall()
    theirs = [number for number, row in rejected if any(value in erased for value in values_in(row))]
    if not gone and not theirs:
        return 0
    con.register("__gone", pa.table({"user_id": pa.array(gone, pa.string())}))
    con.register("__theirs", pa.table({"number": pa.array(theirs, pa.int64())}))
    where = "user_id IN (SELECT user_id FROM __gone) OR rowid IN (SELECT number FROM __theirs)"
    (count,) = con.execute(f"DELETE FROM {STAGED} WHERE {where}").fetchall()[0]  # noqa: S608
    return int(count)


def values_in(row: str | None) -> Iterator[str]:
    """What in a quarantined row may be the shopper: its `user_id`, or where it has none under that name all values.

    A row is a JSON object; of one that is a line of a file, its parts.
    """
    try:
        content = json.loads(row or "{}")
    except ValueError:
        content = {"line": row}
    content = content if isinstance(content, dict) else {"line": str(content)}
    if content.get("user_id") is not None:
        content = {"user_id": content["user_id"]}
    for name, value in content.items():
        if isinstance(value, str):
            yield value.strip()
            if name == "line":
                yield from _BETWEEN_VALUES.split(value)
        elif isinstance(value, int | float):
            yield str(int(value)) if float(value).is_integer() else str(value)
