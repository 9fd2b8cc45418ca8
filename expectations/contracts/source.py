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
                                      # with a zone offset it is converted to UTC
by = "user_id"                        # or "item_id", "query": whole groups in one part, by hash, not by time
validation_fraction = 0.2             # the last part of the rows before the test part (of the groups, with `by`)

[outcome_window]                      # days after an exposure until an outcome without a time is known,
campaign = 28                         # by scenario; without the section each scenario's from its timed outcomes
default = 1                           # scenarios that are not named

[features]
history_days = 180                    # how far back behaviour counts
rating_range = [1, 5]                 # worst and best rating of feedback; without it that of all ratings
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from expectations.contracts.schema import EXTRA_TYPES, ExtraKind, Table
from expectations.contracts.shop_tables import CONTRACTS, SCENARIOS
from expectations.errors import SettingError

CONNECTORS = ("tables", "complete_journey")
SPLIT_BY = ("user_id", "item_id", "query")
DEFAULT_WINDOW = "default"


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
    """One shop's data, as declared in its `source.toml`.

    Attributes:
        test_from: the test part begins here, UTC; None: the last fifth of exposures by time.
        split_by: column whose groups are whole in one part, chosen by hash; None: parts follow each other in time.
        outcome_window: days by scenario, and `default` for those not named, after which an outcome without
            a time is known; empty: from each scenario's timed outcomes.
    """

    name: str
    connector: str
    tables: Mapping[str, TableSource]
    clock: Literal["now", "data"] = "now"
    database_url_env: str | None = None
    test_from: datetime | None = None
    split_by: str | None = None
    validation_fraction: float = 0.2
    outcome_window: Mapping[str, float] = field(default_factory=dict)
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
    known = {"name", "connector", "clock", "tables", "database", "split", "outcome_window", "features"}
    _refuse_unknown(path, "the file", settings, known)
    database, split, features = (settings.get(table, {}) for table in ("database", "split", "features"))
    _refuse_unknown(path, "[database]", database, {"url_env"})
    _refuse_unknown(path, "[split]", split, {"test_from", "by", "validation_fraction"})
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
    split_by = split.get("by")
    require("[split] by", split_by, split_by in (None, *SPLIT_BY), f"use one of {', '.join(SPLIT_BY)}")
    days = features.get("history_days", 180)
    require("history_days", days, isinstance(days, int) and days >= 1, "use a whole number of days from 1")
    ratings = features.get("rating_range")
    ordered = isinstance(ratings, list) and [type(end) in (int, float) for end in ratings] == [True, True]
    ordered = ordered and ratings[0] < ratings[1]
    remedy = "write the worst and the best, such as [1, 5]"
    require("rating_range", ratings, ratings is None or ordered, remedy)
    return Source(
        name=name,
        connector=connector,
        clock=cast(Literal["now", "data"], clock),
        tables=MappingProxyType(tables),
        database_url_env=database.get("url_env"),
        test_from=_test_from(path, split),
        split_by=split_by,
        validation_fraction=float(fraction),
        outcome_window=_outcome_window(path, settings.get("outcome_window", {})),
        history_days=days,
        rating_range=(float(ratings[0]), float(ratings[1])) if ratings else None,
    )


def _test_from(path: Path, split: Mapping[str, Any]) -> datetime | None:
    declared = split.get("test_from")
    if declared is None:
        return None
    if not isinstance(declared, date):  # a datetime is a date
        raise SettingError(f"{path}: test_from is {declared!r}; write a date such as 2017-09-01")
    if split.get("by"):
        raise SettingError(f"{path}: [split] has both by and test_from; groups have no time, leave out one")
    moment = declared if isinstance(declared, datetime) else datetime.combine(declared, time())
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _outcome_window(path: Path, declared: Mapping[str, Any]) -> Mapping[str, float]:
    _refuse_unknown(path, "[outcome_window]", declared, {*SCENARIOS, DEFAULT_WINDOW})
    for scenario, days in declared.items():
        if type(days) not in (int, float) or not 0 <= days < float("inf"):
            raise SettingError(
                f"{path}: [outcome_window] {scenario} is {days!r}; use a number of days from 0"
            )
    return MappingProxyType({scenario: float(days) for scenario, days in declared.items()})


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
            raise SettingError(f"{path}: [tables.{name}] is missing, but is required. {contract.bring}")
    for name, table in tables.items():
        if (table.location is None) == (table.query is None):
            raise SettingError(f"{path}: [tables.{name}] needs either location or query")


def _refuse_unknown(path: Path, where: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise SettingError(
            f"{path}: {where} has an unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}"
        )
