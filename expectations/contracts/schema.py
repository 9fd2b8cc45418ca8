"""A table's contract: grain, key, event time, and what each column may hold."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from types import MappingProxyType
from typing import Literal

import pyarrow as pa

ColumnType = Literal["string", "strings", "timestamp", "integer", "number", "boolean"]
ExtraKind = Literal["numeric", "categorical", "text"]

ARROW_TYPES: Mapping[ColumnType, pa.DataType] = MappingProxyType(
    {
        "string": pa.string(),
        "strings": pa.list_(pa.string()),
        "timestamp": pa.timestamp("us"),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
    }
)

EXTRA_TYPES: Mapping[ExtraKind, ColumnType] = MappingProxyType(
    {"numeric": "number", "categorical": "string", "text": "string"}
)

QUARANTINE_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("stage", pa.string()),  # "ingestion" or "validation"
        ("reason", pa.string()),  # the rule that failed and the offending value
        ("row", pa.string()),  # the whole row as a JSON object
    ]
)
"""Rows that break their contract, kept with the reason and never dropped: `quarantine/<source>/<table>/`."""


@dataclass(frozen=True)
class Column:
    """One column of a contract.

    Attributes:
        name: the column's name in the contract's table.
        type: its logical type; timestamps are microseconds in UTC without a zone.
        description: what a value says.
        required: the column must be brought and may not be null. A column that is not
            required and not brought lands as nulls.
        unit: unit of a number ("seconds", "shop currency").
        allowed: the only values a string may take.
        minimum, maximum: inclusive bounds of a number.
        references: "table.column" whose values this column must be found among.
        extra: set for columns that a source declares beyond the contract.
        personal: its values say something of one shopper: they are told outside the home only as a keyed hash.
    """

    name: str
    type: ColumnType
    description: str
    _: KW_ONLY
    required: bool = False
    unit: str | None = None
    allowed: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    references: str | None = None
    extra: ExtraKind | None = None
    personal: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table's contract.

    Attributes:
        name: the table's name.
        grain: "one row per …".
        key: columns that together are unique and never null.
        event_time: the column that says when the row became true, if the table has one.
            Landed tables are partitioned by its month.
        columns: all columns in order.
        required: whether a shop must bring this table.
        bring: what to bring where a required table is missing, as a sentence.
        extensible: whether a source may declare extra columns, which become features.
    """

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    event_time: str | None = None
    required: bool = False
    bring: str = ""
    extensible: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the landed table."""
        return pa.schema([(column.name, ARROW_TYPES[column.type]) for column in self.columns])

    @property
    def extras(self) -> tuple[Column, ...]:
        """The columns that the source declared beyond the contract."""
        return tuple(column for column in self.columns if column.extra)

    @property
    def personal(self) -> frozenset[str]:
        """Names of the columns whose values say something of one shopper."""
        return frozenset(column.name for column in self.columns if column.personal)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        return {column.name: column for column in self.columns}[name]

    def with_range(self, name: str, low: float, high: float) -> "Table":
        """This contract with bounds on the numbers of one column."""
        bounded = replace(self.column(name), minimum=low, maximum=high)
        return replace(self, columns=tuple(bounded if c.name == name else c for c in self.columns))

    def with_extras(self, extras: Mapping[str, ExtraKind]) -> "Table":
        """This contract with a source's extra columns after its own."""
        own = {column.name for column in self.columns}
        clash = sorted(own & set(extras))
        if clash:
            raise ValueError(f"table {self.name}: extra column {clash[0]} is already in the contract")
        personal = self.name == "users"
        added = tuple(
            Column(
                name,
                EXTRA_TYPES[kind],
                f"{kind} column declared by the source",
                extra=kind,
                personal=personal,
            )
            for name, kind in extras.items()
        )
        return replace(self, columns=self.columns + added)
