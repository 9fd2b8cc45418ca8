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
[tables.items.format]                 # how values are written; see expectations/contracts/file_format.py
decimal = ","

[tables.exposures]
query = "SELECT * FROM exposures"     # with [database]
ledger = true                         # and what the service recorded, with its outcomes; alone or beside location or
                                      # query; items, events, exposures and feedback can have it
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

[decision]                            # how POST /decide decides; see expectations/contracts/decision.py
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from expectations.contracts.decision import DecisionSettings, read_decision
from expectations.contracts.extra_columns import check_extras
from expectations.contracts.file_format import CSV_SETTINGS, NUMBER_SETTINGS, FileFormat, read_format
from expectations.contracts.ledger import READ_BY_INGESTION
from expectations.contracts.schema import ExtraKind, Table
from expectations.contracts.shop_tables import CONTRACTS, SCENARIOS
from expectations.contracts.toml_section import mapping, refuse_unknown
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
        format: how values are written.
        ledger: rows of the ledger, too, united with the others by the table's key.
    """

    location: str | None = None
    query: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, ExtraKind] = field(default_factory=dict)
    format: FileFormat = field(default_factory=FileFormat)
    ledger: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """One shop's data, as declared in its `source.toml`.

    Attributes:
        test_from: the test part begins here, UTC; None: the last fifth of exposures by time.
        split_by: column whose groups are whole in one part, chosen by hash; None: parts follow each other in time.
        outcome_window: days by scenario, and `default` for those not named, after which an outcome without
            a time is known; empty: from each scenario's timed outcomes.
        decision: how POST /decide decides.
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
    decision: DecisionSettings = field(default_factory=DecisionSettings)

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
    known = {
        "name",
        "connector",
        "clock",
        "tables",
        "database",
        "split",
        "outcome_window",
        "features",
        "decision",
    }
    refuse_unknown(f"{path}: the file", settings, known)
    database, split, features = (
        mapping(f"{path}: [{table}]", settings.get(table, {})) for table in ("database", "split", "features")
    )
    refuse_unknown(f"{path}: [database]", database, {"url_env"})
    refuse_unknown(f"{path}: [split]", split, {"test_from", "by", "validation_fraction"})
    refuse_unknown(f"{path}: [features]", features, {"history_days", "rating_range"})

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
        table: _read_table(path, table, declared)
        for table, declared in mapping(f"{path}: tables", settings.get("tables", {})).items()
    }
    if connector == "tables":
        _require_tables(path, tables)
    url_env = database.get("url_env")
    require("url_env", url_env, url_env is None or isinstance(url_env, str), "name an environment variable")
    if any(table.query for table in tables.values()) and not url_env:
        raise SettingError(f"{path}: a table has a query, so [database] url_env must name a variable")
    fraction = split.get("validation_fraction", 0.2)
    between = isinstance(fraction, int | float) and 0 < fraction < 1
    require("validation_fraction", fraction, between, "use a number between 0 and 1")
    split_by = split.get("by")
    require("[split] by", split_by, split_by in (None, *SPLIT_BY), f"use one of {', '.join(SPLIT_BY)}")
    days = features.get("history_days", 180)
    require("history_days", days, type(days) is int and days >= 1, "use a whole number of days from 1")
    ratings = features.get("rating_range")
    ordered = isinstance(ratings, list) and [type(end) in (int, float) for end in ratings] == [True, True]
    ordered = ordered and ratings[0] < ratings[1]  # type: ignore[index]
    remedy = "write the worst and the best, such as [1, 5]"
    require("rating_range", ratings, ratings is None or ordered, remedy)
    return Source(
        name=name,
        connector=connector,
        clock=cast(Literal["now", "data"], clock),
        tables=MappingProxyType(tables),
        database_url_env=url_env,
        test_from=_test_from(path, split),
        split_by=split_by,
        validation_fraction=float(fraction),
        outcome_window=_outcome_window(
            path, mapping(f"{path}: [outcome_window]", settings.get("outcome_window", {}))
        ),
        history_days=days,
        rating_range=(float(ratings[0]), float(ratings[1])) if ratings else None,
        decision=read_decision(path, settings.get("decision", {}), numeric=_numeric_extras(tables)),
    )


def _numeric_extras(tables: Mapping[str, TableSource]) -> set[str]:
    extra = tables["items"].extra if "items" in tables else {}
    return {name for name, kind in extra.items() if kind == "numeric"}


def _test_from(path: Path, split: Mapping[str, Any]) -> datetime | None:
    declared = split.get("test_from")
    if declared is None:
        return None
    if not isinstance(declared, date):  # a datetime is a date
        raise SettingError(f"{path}: test_from is {declared!r}; write a date such as 2017-09-01")
    if split.get("by"):
        raise SettingError(f"{path}: [split] has both by and test_from; groups have no time, leave out one")
    begins = declared if isinstance(declared, datetime) else datetime.combine(declared, time())
    return begins.astimezone(UTC).replace(tzinfo=None) if begins.tzinfo else begins


def _outcome_window(path: Path, declared: Mapping[str, Any]) -> Mapping[str, float]:
    refuse_unknown(f"{path}: [outcome_window]", declared, {*SCENARIOS, DEFAULT_WINDOW})
    for scenario, days in declared.items():
        if type(days) not in (int, float) or not 0 <= days < float("inf"):
            raise SettingError(
                f"{path}: [outcome_window] {scenario} is {days!r}; use a number of days from 0"
            )
    return MappingProxyType({scenario: float(days) for scenario, days in declared.items()})


def _read_table(path: Path, table: str, declared: Any) -> TableSource:
    if table not in CONTRACTS:
        raise SettingError(f"{path}: unknown table {table!r}; the contract has {', '.join(CONTRACTS)}")
    where = f"{path}: [tables.{table}]"
    mappings = ("columns", "constants", "extra", "format")
    declared = mapping(where, declared)
    refuse_unknown(where, declared, {"location", "query", "ledger", *mappings})
    columns, constants, extra, form = (
        mapping(f"{where} {name}", declared.get(name, {})) for name in mappings
    )
    for name, value in [(n, declared.get(n)) for n in ("location", "query")] + list(columns.items()):
        if value is not None and not (isinstance(value, str) and value):
            raise SettingError(f"{where} {name} is {value!r}; write a text")
    ledger = declared.get("ledger", False)
    if not isinstance(ledger, bool) or (ledger and table not in READ_BY_INGESTION):
        raise SettingError(
            f"{where} ledger is {ledger!r}; use true or false, and true for {', '.join(READ_BY_INGESTION)} only"
        )
    check_extras(where, CONTRACTS[table], extra)
    names = {column.name for column in CONTRACTS[table].columns} | set(extra)
    for setting, given in (("columns", columns), ("constants", constants)):
        unknown = sorted(set(given) - names)
        if unknown:
            raise SettingError(f"{where} {setting} names {unknown[0]!r}, which {table} does not have")
    location = declared.get("location")
    found = TableSource(
        location=None if location is None else str((path.parent / location).absolute()),
        query=declared.get("query"),
        columns=MappingProxyType(columns),
        constants=MappingProxyType(constants),
        extra=MappingProxyType(extra),
        format=read_format(f"{path}: [tables.{table}.format]", form),
        ledger=ledger,
    )
    needless = found.format.declared(*CSV_SETTINGS, *NUMBER_SETTINGS) if found.query else []
    if needless:
        raise SettingError(f"{where} has a query, whose numbers have a type; leave out format {needless[0]}")
    return found


def _require_tables(path: Path, tables: Mapping[str, TableSource]) -> None:
    for name, contract in CONTRACTS.items():
        if contract.required and name not in tables:
            raise SettingError(f"{path}: [tables.{name}] is missing, but is required. {contract.bring}")
    for name, table in tables.items():
        given = (table.location is not None) + (table.query is not None)
        if given > 1 or (given == 0 and not table.ledger):
            raise SettingError(f"{path}: [tables.{name}] needs either location or query, or ledger = true")
