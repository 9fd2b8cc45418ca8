"""The declaration of one shop's data: its `source.toml`.

name = "my_shop"
connector = "tables"                  # or "complete_journey"
clock = "now"                         # the time of a request that names none:
                                      # "now", or "data" for data that ended in the past
[tables.items]
location = "items.parquet"            # file, folder or glob of .parquet or .csv, beside source.toml
columns = { item_id = "code", text = "description" }    # contract column = the shop's column
constants = { item_type = "campaign" }                  # the same value in every row
extra = { campaign_type = "categorical", discount = "numeric", terms = "text" }

[tables.exposures]
query = "SELECT * FROM exposures"     # with [database]
[database]
url_env = "SHOP_DATABASE_URL"         # environment variable that holds an SQLAlchemy URL

[split]
test_from = 2017-09-01                # optional; without it the last fifth of exposures by time
validation_fraction = 0.2                # the last part of the rows before the test part

[features]
history_days = 180                    # how far back behaviour counts
rating_range = [1, 5]                 # worst and best rating of feedback; without it that of all ratings
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from expectations.contracts.schema import EXTRA_TYPES, ExtraKind, Table
from expectations.contracts.shop_tables import CONTRACTS
from expectations.errors import SettingError

CONNECTORS = ("tables", "complete_journey")


@dataclass(frozen=True, kw_only=True)
class TableSource:
    """Where one contract table comes from.

    Attributes:
        location: file, folder or glob of Parquet or CSV, absolute; or None.
        query: SQL for the source's database; or None.
        columns: contract column -> the shop's column, where the names differ.
        constants: contract column -> the value of every row.
        extra: extra column -> numeric, categorical or text.
    """

    location: str | None = None
    query: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, ExtraKind] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One shop's data, as declared in its `source.toml`."""

    name: str
    connector: str
    tables: Mapping[str, TableSource]
    clock: Literal["now", "data"] = "now"
    database_url_env: str | None = None
    test_from: datetime | None = None
    validation_fraction: float = 0.2
    history_days: int = 180
    rating_range: tuple[float, float] | None = None

    def contracts(self) -> Mapping[str, Table]:
        """All six contracts, with this source's extra columns and range of ratings."""
        contracts = {
            name: table.with_extras(self.tables[name].extra) if name in self.tables else table
            for name, table in CONTRACTS.items()
        }
        if self.rating_range is not None:
            contracts["feedback"] = contracts["feedback"].with_range("rating", *self.rating_range)
        return MappingProxyType(contracts)


def read_source(path: Path) -> Source:
    """Read and check a `source.toml`.

    Raises:
        SettingError: the file is missing, is not TOML, or a setting is unknown or out of range.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(f"{path} does not exist; give the path of a source.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not valid TOML: {error}") from error
    known = {"name", "connector", "clock", "tables", "database", "split", "features"}
    _refuse_unknown(path, "the file", settings, known)
    database, split, features = (settings.get(table, {}) for table in ("database", "split", "features"))
    _refuse_unknown(path, "[database]", database, {"url_env"})
    _refuse_unknown(path, "[split]", split, {"test_from", "validation_fraction"})
    _refuse_unknown(path, "[features]", features, {"history_days", "rating_range"})

    def require(name: str, value: Any, fits: bool, remedy: str) -> None:
        if not fits:
            raise SettingError(f"{path}: {name} is {value!r}; {remedy}")

    name = settings.get("name", "")
    plain = isinstance(name, str) and name.isidentifier() and name.islower()
    require("name", name, plain, "use lower-case letters, digits and _ only")
    connector = settings.get("connector", "tables")
    require("connector", connector, connector in CONNECTORS, f"use one of {', '.join(CONNECTORS)}")
    clock = settings.get("clock", "now")
    require("clock", clock, clock in ("now", "data"), 'use "now" or "data"')
    tables = {
        table: _read_table(path, table, declared) for table, declared in settings.get("tables", {}).items()
    }
    if connector == "tables":
        _require_tables(path, tables)
    if any(table.query for table in tables.values()) and "url_env" not in database:
        raise SettingError(f"{path}: a table has a query, so [database] url_env must name a variable")
    fraction = split.get("validation_fraction", 0.2)
    between = isinstance(fraction, int | float) and 0 < fraction < 1
    require("validation_fraction", fraction, between, "use a number between 0 and 1")
    days = features.get("history_days", 180)
    require("history_days", days, isinstance(days, int) and days >= 1, "use a whole number of days from 1")
    ratings = features.get("rating_range")
    ordered = isinstance(ratings, list) and [type(end) in (int, float) for end in ratings] == [True, True]
    ordered = ordered and ratings[0] < ratings[1]
    remedy = "write the worst and the best, such as [1, 5]"
    require("rating_range", ratings, ratings is None or ordered, remedy)
    test_from = split.get("test_from")
    dated = test_from is None or isinstance(test_from, date)  # a datetime is a date
    require("test_from", test_from, dated, "write a date such as 2017-09-01")
    if test_from is not None:
        of_day = test_from.time() if isinstance(test_from, datetime) else time()
        test_from = datetime.combine(test_from, of_day)
    return Source(
        name=name,
        connector=connector,
        clock=cast(Literal["now", "data"], clock),
        tables=MappingProxyType(tables),
        database_url_env=database.get("url_env"),
        test_from=test_from,
        validation_fraction=float(fraction),
        history_days=days,
        rating_range=(float(ratings[0]), float(ratings[1])) if ratings else None,
    )


def _read_table(path: Path, table: str, declared: Mapping[str, Any]) -> TableSource:
    if table not in CONTRACTS:
        raise SettingError(f"{path}: unknown table {table!r}; the contract has {', '.join(CONTRACTS)}")
    where = f"[tables.{table}]"
    _refuse_unknown(path, where, declared, {"location", "query", "columns", "constants", "extra"})
    contract = CONTRACTS[table]
    extra = dict(declared.get("extra", {}))
    if extra and not contract.extensible:
        raise SettingError(f"{path}: {where} cannot have extra columns; users, items and exposures can")
    for column, kind in extra.items():
        if kind not in EXTRA_TYPES:
            raise SettingError(f"{path}: {where} extra {column} is {kind!r}; use {', '.join(EXTRA_TYPES)}")
        if not column.isidentifier():
            raise SettingError(f"{path}: {where} extra column {column!r} must be a plain identifier")
    names = {column.name for column in contract.columns} | set(extra)
    for setting in ("columns", "constants"):
        unknown = sorted(set(declared.get(setting, {})) - names)
        if unknown:
            raise SettingError(f"{path}: {where} {setting} names {unknown[0]!r}, which {table} does not have")
    location = declared.get("location")
    if location is not None:
        location = str((path.parent / location).absolute())
    return TableSource(
        location=location,
        query=declared.get("query"),
        columns=MappingProxyType(dict(declared.get("columns", {}))),
        constants=MappingProxyType(dict(declared.get("constants", {}))),
        extra=MappingProxyType(extra),
    )


def _require_tables(path: Path, tables: Mapping[str, TableSource]) -> None:
    for name, contract in CONTRACTS.items():
        if contract.required and name not in tables:
            raise SettingError(f"{path}: [tables.{name}] is missing; items and exposures are required")
    for name, table in tables.items():
        if (table.location is None) == (table.query is None):
            raise SettingError(f"{path}: [tables.{name}] needs either location or query")


def _refuse_unknown(path: Path, where: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise SettingError(
            f"{path}: {where} has an unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}"
        )
