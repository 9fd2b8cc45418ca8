"""Rules that a contract states by itself: columns, keys, required values, allowed values, bounds."""

from functools import partial

from expectations.contracts.schema import Table
from expectations.contracts.shop_tables import COLD_START_USER
from expectations.suites.rules import Rule, Settings, is_missing, key_columns, literal, own, rule, showing


def contract_rules(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    """The rules of one table's contract, all critical.

    A null breaks only the rule of a required column. NaN counts as null, as in pandas.
    """
    tolerated = partial(rule, contract, bound=settings.tolerance)
    columns = contract.columns
    texts = [column.name for column in columns if column.required and column.type == "string"]
    numbers = [column.name for column in columns if column.type == "number"]
    rules = [
        rule(
            contract,
            "columns",
            "the table has the columns of its contract",
            "Ingest the source again.",
            per_row=False,
            expectation="ExpectTableColumnsToMatchSet",
            arguments={"column_set": [column.name for column in columns], "exact_match": False},
        ),
        rule(
            contract,
            "rows",
            "the table has at least one row",
            "Check the location or query of the table in source.toml.",
            per_row=False,
            expectation="ExpectTableRowCountToBeBetween",
            arguments={"min_value": 1},
        ),
    ]
    rules += [
        tolerated(
            f"{column.name}_given",
            f"{column.name} is not null",
            f"Fill {column.name} at the source or leave these rows out.",
            column=column.name,
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": column.name},
            breaks=is_missing(column),
            shows=key_columns(contract) | showing(column.name),
        )
        for column in columns
        if column.required
    ]
    rules += [
        tolerated(
            f"{column.name}_allowed",
            f"{column.name} is one of {', '.join(column.allowed)}",
            f"Translate the source's values of {column.name} into the contract's.",
            column=column.name,
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": column.name, "value_set": list(column.allowed)},
            breaks=f"{own(column.name)} NOT IN ({', '.join(literal(value) for value in column.allowed)})",
            shows=showing(column.name),
        )
        for column in columns
        if column.allowed
    ]
    rules += [
        tolerated(
            f"{column.name}_not_reserved",
            f"{column.name} is not {COLD_START_USER}, which stands for an anonymous reader",
            "Give this shopper another id.",
            column=column.name,
            breaks=f"{own(column.name)} = {literal(COLD_START_USER)}",
            shows=key_columns(contract),
        )
        for column in columns
        if column.name == "user_id"
    ]
    for column in columns:
        value = own(column.name)
        limits = (("<", "least", column.minimum), (">", "most", column.maximum))
        sides = [
            (f"{value} {sign} {end}", f"at {most} {end:g}") for sign, most, end in limits if end is not None
        ]
        known = f"NOT isnan({value}) AND " if column.type == "number" else ""
        if sides:
            rules.append(
                tolerated(
                    f"{column.name}_in_bounds",
                    f"{column.name} is " + " and ".join(phrase for _, phrase in sides),
                    f"Check the unit and sign of {column.name} at the source.",
                    column=column.name,
                    expectation="ExpectColumnValuesToBeBetween",
                    arguments={
                        "column": column.name,
                        "min_value": column.minimum,
                        "max_value": column.maximum,
                    },
                    breaks=f"{known}({' OR '.join(sql for sql, _ in sides)})",
                    shows=showing(column.name),
                )
            )
    rules.append(_key_unique(contract, settings.tolerance))
    rules.append(
        tolerated(
            "required_not_blank",
            f"none of {', '.join(texts)} is blank",
            "Fill them at the source or leave these rows out.",
            breaks=" OR ".join(f"trim({own(name)}) = ''" for name in texts),
            shows=showing(*texts),
        )
    )
    if numbers:
        rules.append(
            tolerated(
                "numbers_finite",
                f"none of {', '.join(numbers)} is infinite",
                "Look for divisions by zero at the source.",
                breaks=" OR ".join(f"isinf({own(name)})" for name in numbers),
                shows=key_columns(contract) | showing(*numbers),
            )
        )
    return tuple(rules)


def _key_unique(contract: Table, bound: float) -> Rule:
    """The first row of a key, in file order, stays; Great Expectations counts all rows that share one."""
    key, compound = contract.key, len(contract.key) > 1
    given = " AND ".join(f"{own(column)} IS NOT NULL" for column in key)
    together = {"column_list": list(key), "ignore_row_if": "any_value_is_missing"}
    return rule(
        contract,
        "key_unique",
        f"{', '.join(key)} {'are together' if compound else 'is'} unique",
        "Remove the copies at the source.",
        column=None if compound else key[0],
        expectation="ExpectCompoundColumnsToBeUnique" if compound else "ExpectColumnValuesToBeUnique",
        arguments=together if compound else {"column": key[0]},
        bound=bound,
        breaks=f"{given} AND t.copy_number > 1",
        counts=f"{given} AND t.num_copies > 1",
    )
