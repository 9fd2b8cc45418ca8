"""Rules between columns of a row and between tables: references, order in time, validity.

Critical are the rules whose breach makes a label or a feature wrong. Warnings are those that honest data may
break: an outcome after the item's end, a shopper without a profile, an outcome whose time nobody noted.
"""

from collections.abc import Collection
from dataclasses import dataclass

from expectations.contracts.schema import Table
from expectations.suites.rules import Rule, Settings, flag_rule, key_columns, own, quoted, showing


@dataclass(frozen=True, kw_only=True)
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
    def unknown(self) -> str:
        """SQL, true where the column has a value that the other table does not have."""
        return f"{own(self.column)} IS NOT NULL AND {self.alias}.{quoted(self.key)} IS NULL"


def references(contract: Table, present: Collection[str]) -> tuple[Reference, ...]:
    """What the table's columns refer to among the tables that are present."""
    found = []
    for column in contract.columns:
        if column.references:
            table, key = column.references.split(".")
            found.append(Reference(column=column.name, table=table, key=key))
    if contract.name == "exposures":
        found.append(Reference(column="user_id", table="users", key="user_id"))
    return tuple(reference for reference in found if reference.table in present)


def cross_rules(contract: Table, present: Collection[str], settings: Settings) -> tuple[Rule, ...]:
    """The rules between rows and tables that can be asked, given the tables that are present."""
    rules = [_known(contract, reference, settings) for reference in references(contract, present)]
    rules += [_not_in_future(contract, column, settings) for column in future_columns(contract)]
    if contract.name == "items":
        rules.append(_validity_in_order(contract, settings))
    if contract.name == "exposures":
        rules += _outcome_rules(contract, settings)
        if "items" in present:
            rules.append(_within_validity(contract, settings))
    return tuple(rules)


def future_columns(contract: Table) -> tuple[str, ...]:
    """Columns that say when something happened, and so cannot lie in the future."""
    times = [contract.event_time] if contract.event_time else []
    return (*times, "outcome_timestamp") if contract.name == "exposures" else tuple(times)


def _known(contract: Table, reference: Reference, settings: Settings) -> Rule:
    shopper = reference.table == "users"
    return flag_rule(
        name=f"{contract.name}.{reference.column}_known",
        table=contract.name,
        column=reference.column,
        severity="warning" if shopper else "critical",
        says=f"{reference.column} is found among the rows of {reference.table} that passed",
        remedy=f"Bring the missing rows of {reference.table}, or see its quarantine.",
        bound=settings.unknown_user if shopper else settings.tolerance,
        breaks=reference.unknown,
        shows=showing(reference.column),
    )


def _not_in_future(contract: Table, column: str, settings: Settings) -> Rule:
    return flag_rule(
        name=f"{contract.name}.{column}_not_in_future",
        table=contract.name,
        column=column,
        severity="critical",
        says=f"{column} is not after the moment of validation",
        remedy="Check the time zone (times are UTC) and the clock of the source.",
        bound=settings.tolerance,
        breaks=f"{own(column)} > (SELECT now FROM clock)",  # noqa: S608
        shows=showing(column),
    )


def _validity_in_order(contract: Table, settings: Settings) -> Rule:
    return flag_rule(
        name="items.validity_in_order",
        table=contract.name,
        column="valid_until",
        severity="critical",
        says="valid_until is not before valid_from",
        remedy="Correct the validity of these items; look for swapped columns.",
        bound=settings.tolerance,
        breaks=f"{own('valid_until')} < {own('valid_from')}",
        shows=showing("item_id", "valid_from", "valid_until"),
    )


def _outcome_rules(contract: Table, settings: Settings) -> list[Rule]:
    outcome, outcome_timestamp = own("outcome"), own("outcome_timestamp")
    shows = key_columns(contract) | showing("outcome", "outcome_timestamp")
    return [
        flag_rule(
            name="exposures.outcome_not_before_exposure",
            table=contract.name,
            column="outcome_timestamp",
            severity="critical",
            says="outcome_timestamp is not before event_timestamp",
            remedy="An answer cannot come before the question: check both times and their zones.",
            bound=settings.tolerance,
            breaks=f"{outcome_timestamp} < {own('event_timestamp')}",
            shows=showing("event_timestamp", "outcome_timestamp"),
        ),
        flag_rule(
            name="exposures.outcome_time_only_if_true",
            table=contract.name,
            column="outcome_timestamp",
            severity="critical",
            says="outcome_timestamp is null unless outcome is true",
            remedy="Set outcome to true or outcome_timestamp to null: one of the two is wrong.",
            bound=settings.tolerance,
            breaks=f"{outcome_timestamp} IS NOT NULL AND {outcome} IS NOT TRUE",
            shows=shows,
        ),
        flag_rule(
            name="exposures.outcome_true_has_time",
            table=contract.name,
            column="outcome_timestamp",
            severity="warning",
            says="a true outcome has its outcome_timestamp",
            remedy="Bring the time of the answer: features count only answers whose time is known.",
            bound=settings.missing_outcome_time,
            breaks=f"{outcome} IS TRUE AND {outcome_timestamp} IS NULL",
            shows=shows,
        ),
    ]


def _within_validity(contract: Table, settings: Settings) -> Rule:
    moment, start, end = (
        own("event_timestamp"),
        '"known_item_id"."valid_from"',
        '"known_item_id"."valid_until"',
    )
    return flag_rule(
        name="exposures.within_item_validity",
        table=contract.name,
        column="event_timestamp",
        severity="warning",
        says="event_timestamp lies within the validity of the item",
        remedy="Check valid_from and valid_until of these items, or why they were shown outside.",
        bound=settings.outside_validity,
        breaks=f"{moment} < {start} OR {moment} >= {end}",
        shows=showing("item_id", "event_timestamp") | {"valid_from": start, "valid_until": end},
    )
