"""A rule on one table: what Great Expectations is to expect, how bad a failure is, which rows break it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from expectations.contracts.schema import Column, Table
from expectations.suites.spelling import Ids

Severity = Literal["critical", "warning"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is tolerated. Shares are between 0 and 1, of the rows of the table.

    Attributes:
        tolerance: rows that may break one critical rule; they go to quarantine and the run goes on.
        missing_text: items without text, before a warning.
        odd_text: items or feedback whose text is shorter or longer than `text_characters`.
        text_characters: shortest and longest usual text, in characters.
        unknown_outcome: exposures whose outcome is not known yet.
        missing_outcome_time: exposures whose outcome is true at no known time.
        unknown_user: events, exposures or feedback of shoppers that the users table does not have.
        min_overlap: of the ids of two tables, those of the one with fewer that both must have; fewer lose what
            shoppers did without an error. Asked from `min_users` ids on.
        outside_validity: exposures before or after their item's validity.
        null_extra: nulls in a column that the source declared; a survey may reach few shoppers, but
            a column given in fewer than one row of ten is likely misnamed or badly joined.
        outliers: amounts further than `outlier_reach` interquartile ranges from the quartiles.
        outlier_reach: in interquartile ranges; 100 finds amounts in another unit, not large baskets.
        min_users, min_items: distinct shoppers and items that exposures should have.
        max_results: validation results, with their pages, that stay for each table.
    """

    tolerance: float = 0.01
    missing_text: float = 0.05
    odd_text: float = 0.05
    text_characters: tuple[int, int] = (3, 8000)
    unknown_outcome: float = 0.5
    missing_outcome_time: float = 0.05
    unknown_user: float = 0.05
    min_overlap: float = 0.02
    outside_validity: float = 0.05
    null_extra: float = 0.9
    outliers: float = 0.001
    outlier_reach: float = 100.0
    min_users: int = 10
    min_items: int = 2
    max_results: int = 5


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One expectation on one table.

    Rules on rows say in SQL which rows break them. In that SQL, `t` is the landed table,
    `known_<column>` the row of the table that the column refers to, `clock.now` the moment of validation.

    Attributes:
        name: "table.what_holds", unique.
        table: the table it is about.
        column: the column it is about, if it is about one.
        severity: critical rules stop the pipeline beyond their bound, and their rows go to quarantine;
            warnings do neither.
        says: what holds, as a clause: "item_id is found in items".
        remedy: what to do where it does not hold, as a sentence.
        expectation: name of the class in great_expectations.expectations.
        arguments: its arguments, without `mostly` and `severity`.
        per_row: whether each row keeps or breaks it; else the table does as a whole.
        bound: fraction of the rows that may break it, 0 for rules on the whole table.
        breaks: SQL, true for the rows that break it. Needed by critical rules on rows and by flags.
        counts: SQL, true for the rows that Great Expectations counts, where they are not those of `breaks`.
        flag: the frame holds a boolean column of the rule's name, false where `breaks` is true.
        measure: SQL query of one number of the whole table; the frame holds it in a column of the rule's name.
        ids: what the rule looks up, to explain why it is not found.
        shows: label -> SQL of the values that a report shows of a row that breaks the rule.
    """

    name: str
    table: str
    column: str | None = None
    severity: Severity
    says: str
    remedy: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    per_row: bool = True
    bound: float = 0.0
    breaks: str | None = None
    counts: str | None = None
    flag: bool = False
    measure: str | None = None
    ids: Ids | None = None
    shows: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the frame that the expectation reads."""
        if self.flag or self.measure:
            return ()
        column = self.arguments.get("column")
        return (column,) if column else tuple(self.arguments.get("column_list", ()))

    @property
    def shown(self) -> str:
        """SQL of what a report shows of a row, such as `event_type=hug`."""
        parts = [
            f"{literal(label + '=')} || coalesce(CAST({sql} AS VARCHAR), 'null')"
            for label, sql in self.shows.items()
        ]
        return f"concat_ws(', ', {', '.join(parts)})"

    @property
    def reason(self) -> str:
        """SQL of why a row breaks it, such as `events.event_type_allowed: event_type=hug`; null where it does not."""
        return f"CASE WHEN {self.breaks} THEN {literal(self.name + ': ')} || {self.shown} END"


def rule(
    contract: Table,
    holds: str,
    says: str,
    remedy: str,
    *,
    expectation: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    shows: Mapping[str, str] | None = None,
    severity: Severity = "critical",
    **settings: Any,
) -> Rule:
    """The rule `<table>.<holds>`; the attributes are those of `Rule`.

    Without an expectation it is a flag: SQL computes it for each row, and Great Expectations expects it to be
    true; or, with a measure, SQL computes one number, and its arguments are the bounds. A report shows the key
    where nothing else is named.
    """
    name = f"{contract.name}.{holds}"
    if "measure" in settings:
        settings["per_row"] = False
        expectation = "ExpectColumnMinToBeBetween"
        arguments = {"column": name, **(arguments or {})}
    shown = {} if "breaks" not in settings else key_columns(contract) if shows is None else shows
    return Rule(
        name=name,
        table=contract.name,
        severity=severity,
        says=says,
        remedy=remedy,
        expectation=expectation or "ExpectColumnValuesToBeInSet",
        arguments=arguments if expectation and arguments else {"column": name, "value_set": [True]},
        flag=expectation is None,
        shows=shown,
        **settings,
    )


def quoted(name: str) -> str:
    """An SQL identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def own(column: str) -> str:
    """The SQL name of the table's own column."""
    return f"t.{quoted(column)}"


def distinct_ids(table: str, column: str, where: str = "true") -> str:
    """An SQL query of a column's distinct values, as `id`; the table is `t`."""
    name = own(column)
    return f"SELECT DISTINCT {name} AS id FROM {quoted(table)} AS t WHERE {name} IS NOT NULL AND {where}"  # noqa: S608


def is_missing(column: Column) -> str:
    """SQL, true where the column has no value; NaN is none, as in pandas."""
    name = own(column.name)
    return f"({name} IS NULL OR isnan({name}))" if column.type == "number" else f"{name} IS NULL"


def showing(*columns: str) -> dict[str, str]:
    """What to show of a row: these columns of its own."""
    return {column: own(column) for column in columns}


def key_columns(contract: Table) -> dict[str, str]:
    """What to show of a row whose own value is missing: its key."""
    return showing(*contract.key)
