"""A landed table as DuckDB sees it: the frame for Great Expectations, and the rows that break a rule.

Great Expectations evaluates the rules, on a pandas frame that holds only what the rules read: a boolean
column for each rule that SQL computes, and the columns that the other expectations name. Columns that
no rule reads are in the frame by name only, as nulls that take no memory. Which rows a failed rule
concerns is asked of DuckDB, by the same predicate, only after a failure: the unexpected indices of Great
Expectations would be one Python object a row, and cannot tell the first row of a key from its copies.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.schema import Table
from expectations.errors import SchemaError
from expectations.storage.masking import Mask
from expectations.suites.engine import open_duckdb, within_memory
from expectations.suites.referential_rules import Reference
from expectations.suites.rules import Rule, is_missing, own, quoted
from expectations.suites.spelling import explain

if TYPE_CHECKING:
    import pandas as pd

NUM_SAMPLES = 5


def data_files(folder: Path) -> tuple[Path, ...]:
    """The Parquet files of one version of a table, in the order that decides which row is first.

    Raises:
        SchemaError: there is none.
    """
    files = tuple(sorted(folder.rglob("*.parquet")))
    if not files:
        raise SchemaError(f"{folder} has no Parquet file; ingest the source again")
    return files


def missing_columns(files: Sequence[Path], contract: Table) -> tuple[str, ...]:
    """The contract's columns that a file of the table lacks.

    Raises:
        SchemaError: a file cannot be read, or a column has another type than in the contract, or is
            not in the contract.
    """
    missing: list[str] = []
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise SchemaError(f"{file} cannot be read as Parquet ({error}); ingest it again") from error
        missing += [name for name in contract.schema.names if name not in schema.names]
        for found in schema:
            if found.name not in contract.schema.names:
                raise SchemaError(
                    f"{file}: table {contract.name} has a column {found.name} that is not in its "
                    "contract; ingest the source again with the present source.toml"
                )
            expected = contract.schema.field(found.name).type
            if found.type != expected:
                raise SchemaError(
                    f"{file}: table {contract.name}, column {found.name} is {found.type}, not {expected}; "
                    "ingest the source again"
                )
    return tuple(dict.fromkeys(missing))


class Scan:
    """One landed table, joined to what it refers to."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, contract: Table, references: Sequence[Reference]
    ) -> None:
        self._connection = connection
        self._contract = contract
        self._references = references

    def num_rows(self) -> int:
        """Rows of the landed table."""
        return self._number("SELECT count(*) FROM landed")

    def num_values(self, columns: Sequence[str]) -> dict[str, int]:
        """For each column, the rows with a value; NaN is none."""
        if not columns:
            return {}
        counts = ", ".join(
            f"count(*) FILTER (NOT {is_missing(self._contract.column(name))})" for name in columns
        )
        row = self._fetch(f"SELECT {counts} FROM landed AS t")[0]  # noqa: S608
        return dict(zip(columns, row, strict=True))

    def frame(self, rules: Sequence[Rule], columns: Sequence[str]) -> "pd.DataFrame":
        """The frame that Great Expectations reads, one row per landed row, in no particular order."""
        import pandas as pd

        needed = {column for rule in rules for column in rule.needs}
        selected = [self._selected(column) for column in columns if column in needed]
        selected += [
            f"NOT coalesce({rule.breaks}, false) AS {quoted(rule.name)}" for rule in rules if rule.flag
        ]
        selected += [
            f"CAST(({rule.measure}) AS DOUBLE) AS {quoted(rule.name)}" for rule in rules if rule.measure
        ]
        # No column is needed of a table whose columns are missing; its rows count all the same.
        query = f"SELECT {', '.join(selected) or '1 AS row'} FROM {self._source()}"  # noqa: S608
        table: pa.Table = self._connection.sql(query).to_arrow_table()
        types = {pa.string(): pd.StringDtype("pyarrow")}
        frame = table.to_pandas(types_mapper=types.get, self_destruct=True)
        unread = [column for column in columns if column not in needed]
        nulls: Any = pd.array(pa.nulls(len(frame)), dtype=pd.ArrowDtype(pa.null()))
        return frame.assign(**dict.fromkeys(unread, nulls))

    def count(self, rule: Rule) -> int:
        """Rows that Great Expectations should have found to break the rule."""
        predicate = rule.counts or rule.breaks
        return self._number(f"SELECT count(*) FROM {self._source(rule)} WHERE {predicate}")  # noqa: S608

    def sample(self, rule: Rule, mask: Mask) -> tuple[str, ...]:
        """A few rows that break the rule, each as "column=value, …", where personal values are masked."""
        values = ", ".join(f"CAST({sql} AS VARCHAR)" for sql in rule.shows.values())
        query = (
            f"SELECT {rule.shown} AS shown, any_value([{values}]) FROM {self._source(rule)} "  # noqa: S608
            f"WHERE {rule.breaks} GROUP BY shown ORDER BY shown LIMIT {NUM_SAMPLES}"
        )
        return tuple(self._told(rule.shows, row[1], mask) for row in self._fetch(query))

    def _told(self, labels: Iterable[str], values: Sequence[str | None], mask: Mask) -> str:
        parts = []
        for label, value in zip(labels, values, strict=True):
            hidden = mask.key and value is not None and label in self._contract.personal
            told = "null" if value is None else value
            parts.append(mask(label, value) if hidden else f"{label}={told}")
        return ", ".join(parts)

    def explain(self, rule: Rule, mask: Mask) -> tuple[str, str | None]:
        """Why the ids that a rule looks up are not found, and the remedy of the likely cause; empty without ids."""
        if rule.ids is None:
            return "", None
        column = rule.column or ""
        personal = column in self._contract.personal
        return explain(self._connection, rule.ids, partial(mask, column) if personal else str)

    def set_apart(self, rules: Sequence[Rule]) -> int:
        """Find the rows that break any of these rules, each once, and count them."""
        self._fetch("DROP TABLE IF EXISTS broken")
        if not rules:
            return 0
        reasons = ", ".join(rule.reason for rule in rules)
        fields = ", ".join(f"{quoted(name)} := {own(name)}" for name in self._contract.schema.names)
        self._fetch(
            "CREATE TEMP TABLE broken AS "  # noqa: S608
            f"SELECT t.filename, t.file_row_number, concat_ws('; ', {reasons}) AS reason, "
            f"CAST(to_json(struct_pack({fields})) AS VARCHAR) AS row FROM {self._source(*rules)} "
            f"WHERE {' OR '.join(f'coalesce({rule.breaks}, false)' for rule in rules)}"
        )
        return self._number("SELECT count(*) FROM broken")

    def broken_rows(self) -> Mapping[str, "pa.Array"]:
        """After `set_apart` found rows: file name -> row numbers in that file, ascending."""
        table = self._fetch(
            "SELECT filename, list(file_row_number ORDER BY file_row_number) FROM broken GROUP BY filename"
        )
        return {filename: pa.array(numbers, pa.int64()) for filename, numbers in table}

    def quarantine(self) -> pa.RecordBatchReader:
        """After `set_apart` found rows: these in the columns of the quarantine, to be read to the end."""
        return self._connection.sql(
            "SELECT ? AS \"table\", 'validation' AS stage, reason, row FROM broken "
            "ORDER BY filename, file_row_number",
            params=[self._contract.name],
        ).to_arrow_reader()

    def _number(self, query: str) -> int:
        return int(self._fetch(query)[0][0])

    def _fetch(self, query: str) -> list[Any]:
        """All rows: DuckDB takes no other query while a result is read in part."""
        return self._connection.execute(query).fetchall()

    def _selected(self, column: str) -> str:
        if self._contract.column(column).type == "boolean":  # so that it has a mean and nulls
            return f"CAST({own(column)} AS DOUBLE) AS {quoted(column)}"
        return f"{own(column)} AS {quoted(column)}"

    def _source(self, *rules: Rule) -> str:
        """The landed table as `t` with its references; copies are numbered only where a rule asks."""
        numbered = any(rule.counts for rule in rules)
        joins = [
            f"LEFT JOIN {quoted('checked_' + reference.table)} AS {reference.alias} "
            f"ON {own(reference.column)} = {reference.alias}.{quoted(reference.key)}"
            for reference in self._references
        ]
        return " ".join([f"{'numbered' if numbered else 'landed'} AS t", *joins])


@contextmanager
def open_scan(
    files: Sequence[Path],
    contract: Table,
    *,
    references: Sequence[Reference],
    checked: Mapping[str, Path],
    now: datetime,
    spill: Path,
    memory: str | None,
) -> Iterator[Scan]:
    """A scan over one landed table, closed with its connection.

    Args:
        files: the table's.
        contract: the table's.
        references: what it refers to.
        checked: the folders of what it is compared with.
        now: events after this time are in the future.
        spill: where DuckDB puts what does not fit.
        memory: what DuckDB may use, such as "6GB".

    Raises:
        SettingError: the rules fit neither in memory nor on the disk.
    """
    num_rows = sum(pq.read_metadata(file).num_rows for file in files)
    with within_memory(contract.name, f"{num_rows:,} rows", memory), open_duckdb(spill, memory) as connection:
        connection.execute("CREATE TEMP TABLE clock AS SELECT $now::TIMESTAMP AS now", {"now": now})
        read: dict[str, Any] = dict.fromkeys(("file_row_number", "filename", "union_by_name"), True)
        paths = [str(file) for file in files]
        connection.read_parquet(paths, hive_partitioning=False, **read).create_view("landed")
        for table, folder in checked.items():
            paths = [str(file) for file in data_files(folder)]
            connection.read_parquet(paths, hive_partitioning=False).create_view(f"checked_{table}")
        key = ", ".join(quoted(column) for column in contract.key)
        connection.execute(
            "CREATE VIEW numbered AS SELECT *, "  # noqa: S608
            f"row_number() OVER (PARTITION BY {key} ORDER BY filename, file_row_number) AS copy_number, "
            f"count(*) OVER (PARTITION BY {key}) AS num_copies FROM landed"
        ).fetchall()
        yield Scan(connection, contract, references)
