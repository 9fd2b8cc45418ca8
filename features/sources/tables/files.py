"""A shop's Parquet and CSV files: found, told apart, and opened as a DuckDB view.

CSV is read as text only, with the columns that its header names, so that one bad value cannot
fail the file; a line with too many or too few fields is set aside with its number. The header is
read here, since DuckDB's sniffer renames a column that is named twice and says nothing.
"""

import csv
import glob
import gzip
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import duckdb

from expectations.errors import SchemaError
from expectations.storage.hashes import file_hash
from expectations.suites.rules import literal
from features.sources.staging import REASON, ROW, STAGED, first_row

_ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".csv.gz": "csv"}
_HASHED_BYTES = 256 * 2**20  # larger files are told apart by size and time


def find_files(table: str, location: str) -> tuple[str, list[Path]]:
    """The files of a location (an absolute path or a glob), and their kind: "parquet" or "csv".

    Raises:
        SchemaError: nothing is there, or the files are of unknown or of several kinds.
    """
    place = Path(location)
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.is_file() and _kind(path))
    else:
        matches = (Path(name) for name in glob.glob(location, recursive=True))  # noqa: PTH207 — absolute
        files = sorted(path for path in matches if path.is_file())
    if not files:
        raise SchemaError(
            f"{table}: {location} has no Parquet or CSV file; correct location in [tables.{table}]"
        )
    kinds = {_kind(path) for path in files}
    if len(kinds) > 1 or None in kinds:
        odd = next((path for path in files if _kind(path) is None), files[0])
        raise SchemaError(
            f"{table}: {location} must hold only .parquet or only .csv (or .csv.gz) files, but has {odd.name}"
        )
    empty = [path for path in files if path.stat().st_size == 0]
    if empty:
        raise SchemaError(f"{table}: {empty[0]} is empty (0 bytes); bring the file again")
    return str(kinds.pop()), files


def identity(files: Sequence[Path]) -> str:
    """What tells the content of files apart: names below their common folder, and hashes.

    A file above 256 MiB is told apart by its size and time of change.
    """
    digest = hashlib.sha256()
    root = os.path.commonpath([path.parent for path in files])
    for path in files:
        status = path.stat()
        large = f"{status.st_size} bytes, changed {status.st_mtime_ns}"
        mark = large if status.st_size > _HASHED_BYTES else file_hash(path)
        digest.update(f"{path.relative_to(root)}\0{mark}\0".encode())
    return digest.hexdigest()


def open_csv(con: duckdb.DuckDBPyConnection, view: str, files: Sequence[Path]) -> None:
    """Make a view of CSV files, every column text; broken lines are noted while it is read.

    Raises:
        SchemaError: a header is not UTF-8, names a column twice, or has none.
    """
    parts = []
    for number, path in enumerate(files):
        delimiter, columns = _header(path)
        struct = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
        parts.append(
            f"SELECT * FROM read_csv({literal(str(path))}, auto_detect = false, header = true, "  # noqa: S608
            f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{struct}}}, "
            f"store_rejects = true, rejects_table = 'broken_{number}', rejects_scan = 'scan_{number}')"
        )
    con.sql(" UNION ALL BY NAME ".join(parts)).create_view(view)


def stage_broken_lines(con: duckdb.DuckDBPyConnection, table: str, files: Sequence[Path]) -> None:
    """Add the lines that are no rows to the staged table, as rejected.

    Raises:
        SchemaError: a file is not UTF-8.
    """
    for number, path in enumerate(files):
        lines = (
            "SELECT line, ltrim(min(csv_line), chr(10)) AS text, min(error_message) AS message, "  # noqa: S608
            "bool_or(error_type = 'INVALID ENCODING') AS undecodable "
            f"FROM broken_{number} GROUP BY file_id, line ORDER BY line"
        )
        bad = first_row(con, f"SELECT line FROM ({lines}) WHERE undecodable")  # noqa: S608
        if bad:
            raise SchemaError(f"{table}: {path} is not UTF-8 (line {bad[0]}); save it as UTF-8")
        con.execute(
            f"INSERT INTO {STAGED} ({REASON}, {ROW}) "  # noqa: S608 — names of ours
            f"SELECT format('line {{}}: {{}}', line, message), to_json({{'line': text}}) FROM ({lines})"
        )


def _header(path: Path) -> tuple[str, list[str]]:
    """The delimiter and the column names of a CSV file."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            start = file.readline()
            delimiter = max(",;\t|", key=start.count)
            file.seek(0)
            columns = [name.strip() for name in next(csv.reader(file, delimiter=delimiter), [])]
    except UnicodeError as error:
        raise SchemaError(f"{path} is not UTF-8 ({error.__class__.__name__}); save it as UTF-8") from None
    except (csv.Error, OSError, EOFError) as error:
        raise SchemaError(f"{path} cannot be read as CSV: {error}; bring a sound file") from error
    names = [name or f"column{number}" for number, name in enumerate(columns)]
    folded = [name.casefold() for name in names]
    twice = sorted({name for name in folded if folded.count(name) > 1})
    if not any(columns) or twice:
        problem = f"names the column {twice[0]!r} twice" if twice else "has no header"
        raise SchemaError(f"{path} {problem}; write one line with the columns' names first")
    return delimiter, names


def _kind(path: Path) -> str | None:
    if path.name.startswith((".", "_")):
        return None
    name = path.name.lower()
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
