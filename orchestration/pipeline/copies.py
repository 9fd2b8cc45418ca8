"""A shopper's copies in the files of a home: what holds them by name is rewritten, what holds them without is dropped.

    tables, checked, features, deployment   Parquet with a user_id: rewritten without their rows
    features/…/online.db, deployment/…      their entities are deleted, and the pages overwritten
    quarantine                              their rows, and lines that were no rows, are deleted
    examples                                their histories have no name: the version is dropped, the next run makes one
    gx                                      pages and results that show them are dropped with the project, likewise
    reports                                 lists of shoppers
    logs, dagster, supervisor               overwritten in place, since services write to them

Every other kind of file holds no shopper by name. Files are read and written one at a time, in batches.
"""

import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expectations.storage.atomic import read_json, replacing, write_json
from features.sources.erased import values_in
from orchestration.home import Home

SCRATCH = (".ingesting-*", ".writing-*", ".spill")
"""What a killed run leaves."""

Theirs = Callable[[pa.Array, str], pa.BooleanArray]
"""Says of a column's values which are a shopper's."""

_BATCH_ROWS = 65_536
_SQLITE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was taken out of a home's files.

    Attributes:
        rows: folder below the home -> rows deleted or values overwritten.
        dropped: folders below the home that are gone as a whole.
        exposure_ids: the shopper's exposures that had landed.
    """

    rows: Counter[str] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    exposure_ids: set[str] = field(default_factory=set)


def remove_copies(home: Home, user_id: str) -> Removed:
    """Take a shopper out of every file of a home, in the order in which runs make them from each other."""
    removed = Removed()
    for folder in (
        home.tables,
        home.checked,
        home.features,
        home.examples,
        home.training,
        home.deployment.parent,
    ):
        _drop_scratch(folder)
    for folder in (home.tables, home.checked, home.features, home.training, home.deployment.parent):
        _filter_all(home, folder, user_id, removed)
    for folder in (home.features, home.deployment.parent):
        for store in sorted(folder.rglob("online.db")):
            removed.rows[_name(home, store)] += _delete_entities(store, user_id)
    for path in sorted(home.quarantine.rglob("*.parquet")):
        removed.rows[_name(home, path.parent)] += _filter(path, "row", user_id, _of_quarantine)
    _drop_examples(home, user_id, removed)
    if any(_mentions(path, user_id, label=False) for path in _files(home.gx)):
        _drop(home, home.gx, removed)
    removed.rows["reports"] += sum(
        _clean_report(path, user_id) for path in sorted(home.report.parent.glob("*.json"))
    )
    for path in (path for folder in (home.logs, home.dagster, home.supervisor) for path in _files(folder)):
        removed.rows[_name(home, path)] += _overwrite(path, user_id)
    return Removed(
        rows=Counter({name: count for name, count in removed.rows.items() if count}),
        dropped=removed.dropped,
        exposure_ids=removed.exposure_ids,
    )


def _name(home: Home, path: Path) -> str:
    """A path below the home, without the parts that say a version or a month."""
    parts = [
        part for part in path.relative_to(home.root).parts if not re.fullmatch(r"[0-9a-f]{16}|month=.*", part)
    ]
    return "/".join(parts)


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _drop_scratch(folder: Path) -> None:
    for pattern in SCRATCH:
        for path in list(folder.rglob(pattern)):
            shutil.rmtree(path, ignore_errors=True)


def _drop(home: Home, folder: Path, removed: Removed) -> None:
    removed.dropped.append(str(folder.relative_to(home.root)))
    shutil.rmtree(folder)


def _filter_all(home: Home, folder: Path, user_id: str, removed: Removed) -> None:
    for path in sorted(folder.rglob("*.parquet")):
        names = pq.read_schema(path).names
        if "user_id" not in names:
            continue
        if "exposure_id" in names:
            removed.exposure_ids.update(_exposures(path, user_id))
        removed.rows[_name(home, path.parent)] += _filter(path, "user_id", user_id, _of_rows)


def _exposures(path: Path, user_id: str) -> set[str]:
    found: set[str] = set()
    with pq.ParquetFile(path) as reader:
        for batch in reader.iter_batches(_BATCH_ROWS, columns=["user_id", "exposure_id"]):
            theirs = batch.filter(_of_rows(batch.column("user_id"), user_id))
            found.update(theirs.column("exposure_id").to_pylist())
    return found


def _of_rows(values: pa.Array, user_id: str) -> pa.BooleanArray:
    return pc.fill_null(pc.equal(values, user_id), fill_value=False)


def _of_quarantine(values: pa.Array, user_id: str) -> pa.BooleanArray:
    return pa.array([user_id in values_in(row) for row in values.to_pylist()], pa.bool_())


def _filter(path: Path, column: str, user_id: str, theirs: Theirs) -> int:
    """Rewrite a Parquet file without a shopper's rows, where it has any, and say how many."""
    with pq.ParquetFile(path) as reader:
        batches = reader.iter_batches(_BATCH_ROWS, columns=[column])
        found = sum(pc.sum(theirs(batch.column(0), user_id)).as_py() or 0 for batch in batches)
        if not found:
            return 0
        with (
            replacing(path) as temporary,
            pq.ParquetWriter(temporary, reader.schema_arrow, compression="zstd") as writer,
        ):
            for batch in reader.iter_batches(_BATCH_ROWS):
                writer.write_batch(batch.filter(pc.invert(theirs(batch.column(column), user_id))))
    return int(found)


def _drop_examples(home: Home, user_id: str, removed: Removed) -> None:
    for rows in sorted(home.examples.glob("*/*/rows.parquet")):
        with pq.ParquetFile(rows) as reader:
            batches = reader.iter_batches(_BATCH_ROWS, columns=["user_id"])
            if any(pc.any(_of_rows(batch.column(0), user_id)).as_py() for batch in batches):
                _drop(home, rows.parent, removed)
                pointer = rows.parents[1] / "current.json"
                if pointer.exists() and read_json(pointer)["version"] == rows.parent.name:
                    pointer.unlink()


def _delete_entities(store: Path, user_id: str) -> int:
    """Delete a shopper's features from Feast's SQLite, whose entity keys end with the length and bytes of the id."""
    value = user_id.encode()
    ending = len(value).to_bytes(4, "little") + value
    count = 0
    with closing(sqlite3.connect(store, timeout=_SQLITE_SECONDS)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            quoted = '"' + table.replace('"', '""') + '"'
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted})")}
            if "entity_key" in columns:
                deleted = connection.execute(
                    f"DELETE FROM {quoted} WHERE substr(entity_key, -?) = ? AND instr(entity_key, ?) > 0",  # noqa: S608
                    (len(ending), ending, b"user_id"),
                )
                count += deleted.rowcount
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return count


def _clean_report(path: Path, user_id: str) -> int:
    report = read_json(path)
    cleaned = _without(report, user_id)
    if cleaned == report:
        return 0
    write_json(path, cleaned)
    return 1


def _without(value: object, user_id: str) -> object:
    """JSON without the id in its lists of shoppers."""
    if not isinstance(value, dict):
        return value
    return {
        name: [one for one in content if one != user_id]
        if "user" in name and isinstance(content, list)
        else _without(content, user_id)
        for name, content in value.items()
    }


def _pattern(user_id: str, *, label: bool) -> re.Pattern[bytes]:
    """The id as a word of its own; with `label`, where it says whose it is, unless it can be nothing else.

    A short or plain number stands for all sorts of things: in a log it is taken for a shopper after `user_id` only.
    """
    word = re.escape(user_id.encode())
    alone = rb"(?<![\w-])" + word + rb"(?![\w-])"
    distinct = len(user_id) >= 6 and not user_id.isdigit()
    if distinct or not label:
        return re.compile(alone)
    return re.compile(rb"(?<=user_id)(?:[\"'=:\s]{1,4})" + alone)


def _mentions(path: Path, user_id: str, *, label: bool) -> bool:
    return bool(_pattern(user_id, label=label).search(path.read_bytes()))


def _overwrite(path: Path, user_id: str) -> int:
    """Overwrite an id in a file with stars, byte by byte: a service that appends to it goes on undisturbed."""
    size, count = len(user_id.encode()), 0
    with path.open("rb+") as file:
        for found in _pattern(user_id, label=True).finditer(file.read()):
            file.seek(found.end() - size)
            file.write(b"*" * size)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count
