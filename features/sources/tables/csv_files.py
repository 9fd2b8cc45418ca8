"""A shop's CSV files, read as texts into one relation: encoding, separator and header are found where certain.

Every column is text, with the names of the header, so that one bad value cannot fail the file; a line with too
many or too few fields is set aside with its number. The header is read here, since DuckDB's sniffer renames a
column that is named twice and says nothing. A file that is not UTF-8 is copied as UTF-8 first.
"""

import codecs
import csv
import gzip
import io
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import duckdb

from expectations.contracts.file_format import FileFormat
from expectations.errors import SchemaError
from expectations.suites.rules import literal, quoted
from features.sources.staging import REASONS, ROW, STAGED, first_row
from features.sources.tables.files import literal_path

_HEAD_LINES = 50
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LIKELY = ("windows-1252", "gb18030", "shift_jis")
_SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?\s*$')


@dataclass(frozen=True, kw_only=True)
class _Dialect:
    """How one file is to be read.

    Attributes:
        path: the file, or its copy in UTF-8.
        delimiter, quote, escape: as DuckDB takes them.
        columns: the names of the header.
        skip: lines before the header.
    """

    path: Path
    delimiter: str
    quote: str
    escape: str
    columns: list[str]
    skip: int


def read_csv(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    files: Sequence[Path],
    *,
    table: str,
    form: FileFormat,
    wanted: Collection[str],
    scratch: Path,
) -> None:
    """Make a temporary table of CSV files, every column text; broken lines are noted.

    Args:
        con: the connection.
        relation: name of the table to make.
        files: the files.
        table: the contract's table, for messages.
        form: the table's format.
        wanted: the shop's columns that are asked for.
        scratch: folder for copies.

    Raises:
        SchemaError: a file is not in its encoding, its separator is not certain, or its header names a
            wanted column twice or nothing.
    """
    for uneven in (False, True):
        parts = []
        for number, path in enumerate(files):
            con.execute(f"DROP TABLE IF EXISTS broken_{number}; DROP TABLE IF EXISTS scan_{number}")
            found = _dialect(path, table, form, wanted, scratch / f"{table}-{number}.csv", copied=uneven)
            parts.append(_select(found, number))
        try:
            con.execute(f"CREATE TEMP TABLE {relation} AS {' UNION ALL BY NAME '.join(parts)}")
            return
        except duckdb.InvalidInputException:  # lines that end in several ways; the copies' do not
            if uneven:
                raise


def _select(found: _Dialect, number: int) -> str:
    struct = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in found.columns)
    filled = ", ".join(f"nullif(trim({quoted(column)}), '')" for column in found.columns)
    return (
        f"SELECT * FROM read_csv({literal(literal_path(found.path))}, auto_detect = false, header = true, "  # noqa: S608
        f"delim = {literal(found.delimiter)}, quote = {literal(found.quote)}, "
        f"escape = {literal(found.escape)}, skip = {found.skip}, columns = {{{struct}}}, "
        f"store_rejects = true, rejects_table = 'broken_{number}', rejects_scan = 'scan_{number}') "
        f"WHERE coalesce({filled}, NULL) IS NOT NULL"  # a spreadsheet's empty rows
    )


def stage_broken_lines(con: duckdb.DuckDBPyConnection, table: str, files: Sequence[Path]) -> None:
    """Add the lines that are no rows to the staged table, as rejected.

    Raises:
        SchemaError: a file is not UTF-8, or a quote never closes.
    """
    for number, path in enumerate(files):
        lines = (
            "SELECT line, ltrim(min(csv_line), chr(10)) AS text, min(error_message) AS message, "  # noqa: S608
            "bool_or(error_type = 'INVALID ENCODING') AS undecodable, "
            "bool_or(error_type = 'LINE SIZE OVER MAXIMUM' OR error_type = 'UNQUOTED VALUE' "
            "AND contains(trim(csv_line, chr(10) || chr(13)), chr(10))) AS swallowed "
            f"FROM broken_{number} GROUP BY file_id, line ORDER BY line"
        )
        bad = first_row(con, f"SELECT line FROM ({lines}) WHERE undecodable")  # noqa: S608
        if bad:
            raise _undecodable(table, path, "utf-8")
        bad = first_row(con, f"SELECT line FROM ({lines}) WHERE swallowed")  # noqa: S608
        if bad:
            raise SchemaError(
                f"{table}: {path} line {bad[0]} opens a quote that nothing closes, and the lines "
                f"after it would be lost; correct it, or set quote or escape in [tables.{table}.format]"
            )
        con.execute(
            f"INSERT INTO {STAGED} ({REASONS}, {ROW}) "  # noqa: S608 — names of ours
            f"SELECT [format('line {{}}: {{}}', line, message)], to_json({{'line': text}}) FROM ({lines})"
        )


def _dialect(
    path: Path, table: str, form: FileFormat, wanted: Collection[str], copy: Path, *, copied: bool
) -> _Dialect:
    encoding = form.encoding or _marked_encoding(path)
    if copied or codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig", "ascii"):
        _copy_as_utf8(path, encoding, table, copy)
        path = copy
    quote = '"' if form.quote is None else form.quote
    escape = quote if form.escape is None else form.escape
    try:
        with _opened(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            lines = list(islice(file, _HEAD_LINES))
    except UnicodeError:
        raise _undecodable(table, path, "utf-8") from None
    except (OSError, EOFError) as error:
        raise SchemaError(f"{path} cannot be read as CSV: {error}; bring a sound file") from error
    skip, delimiter = 0, form.delimiter
    while skip < len(lines) and (not lines[skip].strip() or _SEPARATOR_LINE.match(lines[skip])):
        named = _SEPARATOR_LINE.match(lines[skip])
        delimiter = delimiter or (named[1] if named else None)
        skip += 1

    def header(delimiter: str) -> list[str]:
        options: dict[str, Any] = {"quotechar": quote, "doublequote": escape == quote}
        if not quote:
            options = {"quoting": csv.QUOTE_NONE}
        if escape and escape != quote:
            options["escapechar"] = escape
        reader = csv.reader(lines[skip:], delimiter=delimiter, **options)
        return [name.strip() for name in next(reader, [])]

    try:
        delimiter = delimiter or _delimiter(path, table, "".join(lines[skip : skip + 1]), header, wanted)
        columns = _names(path, header(delimiter), wanted)
    except csv.Error as error:
        raise SchemaError(f"{path} cannot be read as CSV: {error}; bring a sound file") from error
    return _Dialect(path=path, delimiter=delimiter, quote=quote, escape=escape, columns=columns, skip=skip)


def _delimiter(
    path: Path, table: str, line: str, header: Callable[[str], list[str]], wanted: Collection[str]
) -> str:
    """The separator under which the header has most of the wanted names; else the most frequent one."""
    candidates = [mark for mark in ",;\t|" if mark in line]
    if len(candidates) < 2:
        return candidates[0] if candidates else ","
    score = {mark: (len(set(header(mark)) & set(wanted)), len(header(mark))) for mark in candidates}
    best = max(score.values())
    fitting = [mark for mark in candidates if score[mark] == best]
    if len(fitting) > 1:
        raise SchemaError(
            f"{table}: {path} may be separated by {' or by '.join(map(repr, fitting))}; "
            f"set delimiter in [tables.{table}.format]"
        )
    return fitting[0]


def _names(path: Path, columns: Sequence[str], wanted: Collection[str]) -> list[str]:
    """The columns' names; a column without one, or with one that stands there already, gets another."""
    if not any(columns):
        raise SchemaError(f"{path} has no header; write one line with the columns' names first")
    names: list[str] = []
    taken = {column.casefold() for column in columns}
    sought = {column.casefold() for column in wanted}
    seen: set[str] = set()
    for number, column in enumerate(columns):
        name = column or f"column{number}"
        if name.casefold() in seen:
            if name.casefold() in sought:
                raise SchemaError(f"{path} names the column {name!r} twice; name them apart")
            name = next(
                f"{name}_{n}" for n in range(2, len(columns) + 2) if f"{name}_{n}".casefold() not in taken
            )
            taken.add(name.casefold())
        seen.add(name.casefold())
        names.append(name)
    return names


def _marked_encoding(path: Path) -> str:
    """The encoding that a file's byte order mark names; that of 16-bit text without one; else UTF-8."""
    try:
        with _opened(path) as file:
            start = file.read(4096)
    except (OSError, EOFError) as error:
        raise SchemaError(f"{path} cannot be read as CSV: {error}; bring a sound file") from error
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    zeros = [start[side::2].count(0) / max(1, len(start) // 2) for side in (0, 1)]
    if max(zeros) > 0.4 and min(zeros) < 0.1:  # every second byte of Latin letters
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def _copy_as_utf8(path: Path, encoding: str, table: str, copy: Path) -> None:
    try:
        with (
            _opened(path) as binary,
            io.TextIOWrapper(binary, encoding=encoding, newline=None) as source,
            copy.open("w", encoding="utf-8", newline="") as target,
        ):
            shutil.copyfileobj(source, target, 2**20)
    except UnicodeError:
        raise _undecodable(table, path, encoding) from None


def _undecodable(table: str, path: Path, encoding: str) -> SchemaError:
    """The error of a file that is not in its encoding, with how others would read the first such line."""
    number, line = next(_bad_lines(path, encoding), (0, b""))
    readings = []
    for other in _LIKELY:
        try:
            text = line.decode(other).strip()
        except UnicodeError:
            continue
        first = next((n for n, character in enumerate(text) if not character.isascii()), 0)
        readings.append(f'encoding = "{other}" would read {text[max(0, first - 15) : first + 25]!r}')
    where = f" (line {number})" if number else ""
    tried = "UTF-8" if encoding == "utf-8" else encoding
    return SchemaError(
        f"{table}: {path} is not {tried}{where}; save it as UTF-8, or set its encoding in [tables.{table}.format]"
        + (": " + ", ".join(readings) if readings else "")
    )


def _bad_lines(path: Path, encoding: str) -> Iterator[tuple[int, bytes]]:
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        return
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeError:
                yield number, line


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with cast(IO[bytes], gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")) as file:
        yield file
