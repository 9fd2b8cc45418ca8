"""Rules between columns of a row and between tables: references, order in time, validity.

Critical are the rules whose breach makes a label or a feature wrong. Warnings are those that honest data may
break: an outcome after the item's end, a shopper without a profile, an outcome whose time nobody noted.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from expectations.contracts.schema import Table
from expectations.suites.rules import Rule, Settings, distinct_ids, key_columns, own, quoted, rule, showing
from expectations.suites.spelling import Ids

WITH_SHOPPERS = ("events", "exposures", "feedback")
MAX_GRADE = 10
"""A grade's gain is 2^grade - 1: what is higher is an amount or a percentage, not a grade."""


@dataclass(frozen=True)
class Reference:
    """A column whose values are looked up in the key of another table."""

    column: str
    table: str
    key: str

    @property
    def alias(self) -> str:
        """SQL name of the row that the column refers to."""
        return quoted(f"known_{self.column}")

    @property
    def ids(self) -> Ids:
        """What is looked up, and among what."""
        return Ids(
            distinct_ids("landed", self.column), distinct_ids(f"checked_{self.table}", self.key), self.table
        )

    @property
    def unknown(self) -> str:
        """SQL, true where the column has a value that the other table does not have."""
        return f"{own(self.column)} IS NOT NULL AND {self.alias}.{quoted(self.key)} IS NULL"


def references(contract: Table, present: Collection[str]) -> tuple[Reference, ...]:
    """What the table's columns refer to among the tables that are present."""
    named = {column.name: column.references.split(".") for column in contract.columns if column.references}
    if contract.name in WITH_SHOPPERS:
        named["user_id"] = ["users", "user_id"]
    return tuple(Reference(column, *other) for column, other in named.items() if other[0] in present)


def future_columns(contract: Table) -> tuple[str, ...]:
    """Columns that say when something happened, and so cannot lie in the future."""
    times = [contract.event_time] if contract.event_time else []
    return (*times, "outcome_timestamp") if contract.name == "exposures" else tuple(times)


def cross_rules(contract: Table, present: Collection[str], settings: Settings) -> tuple[Rule, ...]:
    """The rules between rows and tables that can be asked, given the tables that are present."""
    rules = []
    for reference in references(contract, present):
        user = reference.table == "users"
        rules.append(
            rule(
                contract,
                f"{reference.column}_known",
                f"{reference.column} is found among the rows of {reference.table} that passed",
                f"Bring the missing rows of {reference.table}, or see its quarantine.",
                column=reference.column,
                severity="warning" if user else "critical",
                bound=settings.unknown_user if user else settings.tolerance,
                breaks=reference.unknown,
                shows=showing(reference.column),
                ids=reference.ids,
            )
        )
    rules += [
        rule(
            contract,
            f"{column}_not_in_future",
            f"{column} is not after the moment of validation",
            "Check the time zone (times are UTC) and the clock of the source.",
            column=column,
            bound=settings.tolerance,
            breaks=f"{own(column)} > (SELECT now FROM clock)",  # noqa: S608
            shows=showing(column),
        )
        for column in future_columns(contract)
    ]
    if contract.name == "items":
        rules.append(
            rule(
                contract,
                "validity_in_order",
                "valid_until is not before valid_from",
                "Correct the validity of these items; look for swapped columns.",
                column="valid_until",
                bound=settings.tolerance,
                breaks=f"{own('valid_until')} < {own('valid_from')}",
                shows=showing("item_id", "valid_from", "valid_until"),
            )
        )
    if contract.name == "exposures":
        rules += _outcome_rules(contract, settings)
        if "items" in present:
            rules.append(_within_validity(contract, settings))
    return tuple(rules)


def _outcome_rules(contract: Table, settings: Settings) -> list[Rule]:
    outcome, time = own("outcome"), own("outcome_timestamp")
    impressions, clicks = own("impressions"), own("clicks")
    of_outcome = partial(rule, contract, column="outcome", bound=settings.tolerance)
    aggregate = partial(rule, contract, column="clicks", bound=settings.tolerance)
    counts = key_columns(contract) | showing("impressions", "clicks")
    of_time = partial(rule, contract, column="outcome_timestamp")
    shows = key_columns(contract) | showing("outcome", "outcome_timestamp")
    return [
        of_outcome(
            "outcome_is_grade",
            f"outcome is 0, 1 or a grade: a whole number from 0 to {MAX_GRADE}",
            "Bring 0 and 1, or whole grades, the higher the more relevant; an amount belongs in outcome_value.",
            breaks=f"NOT isnan({outcome}) AND ({outcome} NOT BETWEEN 0 AND {MAX_GRADE} OR {outcome} % 1 <> 0)",
            shows=key_columns(contract) | showing("outcome"),
        ),
        of_outcome(
            "aggregate_without_outcome",
            "a row with impressions or clicks has no outcome",
            "Leave outcome empty where a row stands for impressions: its clicks say how many were positive.",
            breaks=f"coalesce({impressions}, {clicks}) IS NOT NULL AND {outcome} IS NOT NULL",
            shows=counts | showing("outcome"),
        ),
        aggregate(
            "impressions_with_clicks",
            "impressions and clicks are given together",
            "Bring both; where nobody clicked, clicks is 0.",
            breaks=f"({impressions} IS NULL) <> ({clicks} IS NULL)",
            shows=counts,
        ),
        aggregate(
            "clicks_within_impressions",
            "clicks are not more than impressions",
            "Count an impression's clicks once, and look for swapped columns.",
            breaks=f"{clicks} > {impressions}",
            shows=counts,
        ),
        of_time(
            "outcome_not_before_exposure",
            "outcome_timestamp is not before event_timestamp",
            "An answer cannot come before the question: check both times and their zones.",
            bound=settings.tolerance,
            breaks=f"{time} < {own('event_timestamp')}",
            shows=showing("event_timestamp", "outcome_timestamp"),
        ),
        of_time(
            "outcome_time_only_if_positive",
            "outcome_timestamp is null unless outcome is positive",
            "Set outcome to 1 or outcome_timestamp to null: one of the two is wrong.",
            bound=settings.tolerance,
            breaks=f"{time} IS NOT NULL AND NOT coalesce({outcome} > 0, false)",
            shows=shows,
        ),
        of_time(
            "positive_outcome_has_time",
            "a positive outcome has its outcome_timestamp",
            "Bring the time of the answer, or set [outcome_window] in source.toml: an answer without a time counts "
            "only once its window has passed.",
            severity="warning",
            bound=settings.missing_outcome_time,
            breaks=f"{outcome} > 0 AND {time} IS NULL",
            shows=shows,
        ),
    ]


def _within_validity(contract: Table, settings: Settings) -> Rule:
    start, end = '"known_item_id"."valid_from"', '"known_item_id"."valid_until"'
    return rule(
        contract,
        "within_item_validity",
        "event_timestamp lies within the validity of the item",
        "Check valid_from and valid_until of these items, or why they were shown outside.",
        column="event_timestamp",
        severity="warning",
        bound=settings.outside_validity,
        breaks=f"{own('event_timestamp')} < {start} OR {own('event_timestamp')} >= {end}",
        shows=showing("item_id", "event_timestamp") | {"valid_from": start, "valid_until": end},
    )
