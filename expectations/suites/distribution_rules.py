"""Rules on what is normal in a table: how much text, how many outcomes, how many shoppers, how large amounts.

All are warnings but one: outcomes that are all equal teach nothing, so training must not start.
"""

from expectations.contracts.schema import Column, Table
from expectations.suites.rules import Rule, Settings, flag_rule, is_missing, key_columns, own


def distribution_rules(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    """The distribution rules of one table; none for a table that has nothing to measure."""
    rules = {"items": _items, "events": _events, "exposures": _exposures, "feedback": _feedback}
    own_rules = rules[contract.name](contract, settings) if contract.name in rules else ()
    return (*own_rules, *(_declared(contract, column, settings) for column in contract.extras))


def _items(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    present = flag_rule(
        name="items.text_present",
        table="items",
        column="text",
        severity="warning",
        says="text is neither missing nor blank",
        remedy="The model reads items by their text: describe these items in words.",
        bound=settings.missing_text,
        breaks=f"coalesce(trim({own('text')}), '') = ''",
        shows=key_columns(contract),
    )
    return present, _text_length(contract, settings)


def _feedback(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    return (_text_length(contract, settings),)


def _text_length(contract: Table, settings: Settings) -> Rule:
    low, high = settings.text_characters
    length = f"length(trim({own('text')}))"
    return flag_rule(
        name=f"{contract.name}.text_length",
        table=contract.name,
        column="text",
        severity="warning",
        says=f"text has {low:,} to {high:,} characters where there is any",
        remedy="Look for codes, cut-off texts or whole pages in place of a description.",
        bound=settings.odd_text,
        breaks=f"{length} > 0 AND {length} NOT BETWEEN {low} AND {high}",
        shows=key_columns(contract) | {"characters": length},
    )


def _events(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    return (
        Rule(
            name="events.amount_not_outlier",
            table=contract.name,
            column="amount",
            severity="warning",
            says=f"amount lies within {settings.outlier_reach:g} interquartile ranges of the quartiles",
            remedy="Check whether a part of the amounts is in another unit or currency.",
            expectation="ExpectColumnValuesToNotBeOutliers",
            arguments={"column": "amount", "method": "iqr", "multiplier": settings.outlier_reach},
            bound=settings.outliers,
        ),
    )


def _exposures(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    known = Rule(
        name="exposures.outcome_known",
        table=contract.name,
        column="outcome",
        severity="warning",
        says="outcome is known",
        remedy="Exposures without a known outcome cannot be learned from: bring outcomes, false included.",
        expectation="ExpectColumnValuesToNotBeNull",
        arguments={"column": "outcome"},
        bound=settings.unknown_outcome,
        breaks=f"{own('outcome')} IS NULL",
        shows=key_columns(contract),
    )
    varied = Rule(
        name="exposures.outcome_not_degenerate",
        table=contract.name,
        column="outcome",
        severity="critical",
        per_row=False,
        says="the share of positive outcomes lies between 0 and 1, both excluded",
        remedy="Bring exposures with and without an answer: nothing can be learned from equal outcomes.",
        expectation="ExpectColumnMeanToBeBetween",
        arguments={
            "column": "outcome",
            "min_value": 0,
            "max_value": 1,
            "strict_min": True,
            "strict_max": True,
        },
    )
    return (
        known,
        varied,
        _distinct(contract, "user_id", "shoppers", settings.min_users),
        _distinct(contract, "item_id", "items", settings.min_items),
    )


def _distinct(contract: Table, column: str, what: str, least: int) -> Rule:
    return Rule(
        name=f"{contract.name}.enough_{what}",
        table=contract.name,
        column=column,
        severity="warning",
        per_row=False,
        says=f"there are at least {least} distinct {what}",
        remedy=f"Check {column} at the source; with so few {what} there is little to choose or compare.",
        expectation="ExpectColumnUniqueValueCountToBeBetween",
        arguments={"column": column, "min_value": least},
    )


def _declared(contract: Table, column: Column, settings: Settings) -> Rule:
    """Items of several types share a table: a column need not be given for types that never have it."""
    missing = is_missing(column)
    breaks = missing
    if contract.name == "items":
        given = f"FROM landed AS t WHERE NOT {missing}"
        breaks = (
            f"{missing} AND ({own('item_type')} IN (SELECT {own('item_type')} {given}) "
            f"OR NOT EXISTS (SELECT 1 {given}))"
        )
    return flag_rule(
        name=f"{contract.name}.{column.name}_mostly_given",
        table=contract.name,
        column=column.name,
        severity="warning",
        says=f"the declared column {column.name} is given where it could be",
        remedy=f"Check the name and type of {column.name} in source.toml, or take it out of extra.",
        bound=settings.null_extra,
        breaks=breaks,
        shows=key_columns(contract),
    )
