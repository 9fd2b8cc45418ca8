"""Rules on what is normal in a table: how much text, how many outcomes, how many shoppers, how large amounts.

All are warnings but one: outcomes that are all equal teach nothing, so training must not start.
"""

from functools import partial

from expectations.contracts.schema import Column, Table
from expectations.suites.rules import Rule, Settings, is_missing, key_columns, own, rule


def distribution_rules(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    """The distribution rules of one table; none for a table that has nothing to measure."""
    warning = partial(rule, contract, severity="warning")
    rules = []
    if contract.name == "items":
        rules.append(
            warning(
                "text_present",
                "text is neither missing nor blank",
                "The model reads items by their text: describe these items in words.",
                column="text",
                bound=settings.missing_text,
                breaks=f"coalesce(trim({own('text')}), '') = ''",
            )
        )
    if contract.name in ("items", "feedback"):
        low, high = settings.text_characters
        length = f"length(trim({own('text')}))"
        rules.append(
            warning(
                "text_length",
                f"text has {low:,} to {high:,} characters where there is any",
                "Look for codes, cut-off texts or whole pages in place of a description.",
                column="text",
                bound=settings.odd_text,
                breaks=f"{length} > 0 AND {length} NOT BETWEEN {low} AND {high}",
                shows=key_columns(contract) | {"characters": length},
            )
        )
    if contract.name == "events":
        rules.append(
            warning(
                "amount_not_outlier",
                f"amount lies within {settings.outlier_reach:g} interquartile ranges of the quartiles",
                "Check whether a part of the amounts is in another unit or currency.",
                column="amount",
                expectation="ExpectColumnValuesToNotBeOutliers",
                arguments={"column": "amount", "method": "iqr", "multiplier": settings.outlier_reach},
                bound=settings.outliers,
            )
        )
    if contract.name == "exposures":
        rules += _exposures(contract, settings)
    return (*rules, *(_declared(contract, column, settings) for column in contract.extras))


def _exposures(contract: Table, settings: Settings) -> list[Rule]:
    strictly = {"min_value": 0, "max_value": 1, "strict_min": True, "strict_max": True}
    response = "coalesce(clicks / impressions, outcome / (SELECT greatest(max(outcome), 1) FROM landed))"
    known = rule(
        contract,
        "outcome_known",
        "outcome is known, or impressions are",
        "Exposures without a known outcome cannot be learned from: bring outcomes, 0 included.",
        column="outcome",
        severity="warning",
        bound=settings.unknown_outcome,
        breaks=f"{is_missing(contract.column('outcome'))} AND {own('impressions')} IS NULL",
    )
    varied = rule(
        contract,
        "outcome_not_degenerate",
        "the fraction of positive outcomes lies between 0 and 1, both excluded",
        "Bring exposures with and without an answer: nothing can be learned from equal outcomes. A log of clicks or "
        "sales has only answers; add what was shown at the same places and left, with outcome 0.",
        column="outcome",
        measure=f"SELECT avg({response}) FROM landed WHERE NOT coalesce(isnan(outcome), false)",  # noqa: S608
        arguments=strictly,
    )
    enough = (("user_id", "shoppers", settings.min_users), ("item_id", "items", settings.min_items))
    distinct = [
        rule(
            contract,
            f"enough_{what}",
            f"there are at least {least} distinct {what}, if any is named",
            f"Check {column} at the source; with so few {what} there is little to choose or compare.",
            column=column,
            severity="warning",
            measure=f"SELECT coalesce(nullif(count(DISTINCT {column}), 0), {least}) FROM landed",  # noqa: S608
            arguments={"min_value": least},
        )
        for column, what, least in enough
    ]
    return [known, varied, *distinct]


def _declared(contract: Table, column: Column, settings: Settings) -> Rule:
    """Items of several types share a table: a column need not be given for types that never have it."""
    breaks = missing = is_missing(column)
    if contract.name == "items":
        given = f"FROM landed AS t WHERE NOT {missing}"
        breaks = (
            f"{missing} AND ({own('item_type')} IN (SELECT {own('item_type')} {given}) "
            f"OR NOT EXISTS (SELECT 1 {given}))"
        )
    return rule(
        contract,
        f"{column.name}_mostly_given",
        f"the declared column {column.name} is given where it could be",
        f"Check the name and type of {column.name} in source.toml, or take it out of extra.",
        column=column.name,
        severity="warning",
        bound=settings.null_extra,
        breaks=breaks,
    )
