"""Rules that a contract states by itself: columns, keys, required values, allowed values, bounds."""

from expectations.contracts.schema import Column, Table
from expectations.suites.rules import (
    Rule,
    Settings,
    flag_rule,
    is_missing,
    key_columns,
    literal,
    own,
    showing,
)


def contract_rules(contract: Table, settings: Settings) -> tuple[Rule, ...]:
    """The rules of one table's contract, all critical.

    A null breaks only the rule of a required column. NaN counts as null, as in pandas.
    """
    tolerance = settings.tolerance
    rules = [_columns(contract), _rows(contract)]
    rules += [_given(contract, column, tolerance) for column in contract.columns if column.required]
    rules += [_allowed(contract, column, tolerance) for column in contract.columns if column.allowed]
    rules += [
        _in_bounds(contract, column, tolerance)
        for column in contract.columns
        if column.minimum is not None or column.maximum is not None
    ]
    rules += [_key_unique(contract, tolerance), _not_blank(contract, tolerance)]
    if any(column.type == "number" for column in contract.columns):
        rules.append(_finite(contract, tolerance))
    return tuple(rules)


def _columns(contract: Table) -> Rule:
    return Rule(
        name=f"{contract.name}.columns",
        table=contract.name,
        severity="critical",
        per_row=False,
        says="the table has the columns of its contract",
        remedy="Ingest the source again.",
        expectation="ExpectTableColumnsToMatchSet",
        arguments={"column_set": [column.name for column in contract.columns], "exact_match": False},
    )


def _rows(contract: Table) -> Rule:
    return Rule(
        name=f"{contract.name}.rows",
        table=contract.name,
        severity="critical",
        per_row=False,
        says="the table has at least one row",
        remedy="Check the location or query of the table in source.toml.",
        expectation="ExpectTableRowCountToBeBetween",
        arguments={"min_value": 1},
    )


def _given(contract: Table, column: Column, bound: float) -> Rule:
    return Rule(
        name=f"{contract.name}.{column.name}_given",
        table=contract.name,
        column=column.name,
        severity="critical",
        says=f"{column.name} is not null",
        remedy=f"Fill {column.name} at the source or leave these rows out.",
        expectation="ExpectColumnValuesToNotBeNull",
        arguments={"column": column.name},
        bound=bound,
        breaks=is_missing(column),
        shows=key_columns(contract) | showing(column.name),
    )


def _allowed(contract: Table, column: Column, bound: float) -> Rule:
    allowed = column.allowed or ()
    values = ", ".join(literal(value) for value in allowed)
    return Rule(
        name=f"{contract.name}.{column.name}_allowed",
        table=contract.name,
        column=column.name,
        severity="critical",
        says=f"{column.name} is one of {', '.join(allowed)}",
        remedy=f"Translate the source's values of {column.name} into the contract's.",
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": column.name, "value_set": list(allowed)},
        bound=bound,
        breaks=f"{own(column.name)} NOT IN ({values})",
        shows=showing(column.name),
    )


def _in_bounds(contract: Table, column: Column, bound: float) -> Rule:
    value = own(column.name)
    known = f"NOT isnan({value}) AND " if column.type == "number" else ""
    sides = []
    if column.minimum is not None:
        sides.append((f"{value} < {column.minimum}", f"at least {column.minimum:g}"))
    if column.maximum is not None:
        sides.append((f"{value} > {column.maximum}", f"at most {column.maximum:g}"))
    return Rule(
        name=f"{contract.name}.{column.name}_in_bounds",
        table=contract.name,
        column=column.name,
        severity="critical",
        says=f"{column.name} is " + " and ".join(words for _, words in sides),
        remedy=f"Check the unit and sign of {column.name} at the source.",
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": column.name, "min_value": column.minimum, "max_value": column.maximum},
        bound=bound,
        breaks=f"{known}({' OR '.join(sql for sql, _ in sides)})",
        shows=showing(column.name),
    )


def _key_unique(contract: Table, bound: float) -> Rule:
    """The first row of a key, in file order, stays; Great Expectations counts all rows that share one."""
    compound = len(contract.key) > 1
    given = " AND ".join(f"{own(column)} IS NOT NULL" for column in contract.key)
    return Rule(
        name=f"{contract.name}.key_unique",
        table=contract.name,
        column=None if compound else contract.key[0],
        severity="critical",
        says=f"{', '.join(contract.key)} {'are together' if compound else 'is'} unique",
        remedy="Remove the copies at the source.",
        expectation="ExpectCompoundColumnsToBeUnique" if compound else "ExpectColumnValuesToBeUnique",
        arguments=(
            {"column_list": list(contract.key), "ignore_row_if": "any_value_is_missing"}
            if compound
            else {"column": contract.key[0]}
        ),
        bound=bound,
        breaks=f"{given} AND t.copy_number > 1",
        counts=f"{given} AND t.num_copies > 1",
        shows=key_columns(contract),
    )


def _not_blank(contract: Table, bound: float) -> Rule:
    names = [column.name for column in contract.columns if column.required and column.type == "string"]
    return flag_rule(
        name=f"{contract.name}.required_not_blank",
        table=contract.name,
        column=None,
        severity="critical",
        says=f"none of {', '.join(names)} is blank",
        remedy="Fill them at the source or leave these rows out.",
        bound=bound,
        breaks=" OR ".join(f"trim({own(name)}) = ''" for name in names),
        shows=showing(*names),
    )


def _finite(contract: Table, bound: float) -> Rule:
    names = [column.name for column in contract.columns if column.type == "number"]
    return flag_rule(
        name=f"{contract.name}.numbers_finite",
        table=contract.name,
        column=None,
        severity="critical",
        says=f"none of {', '.join(names)} is infinite",
        remedy="Look for divisions by zero at the source.",
        bound=bound,
        breaks=" OR ".join(f"isinf({own(name)})" for name in names),
        shows=key_columns(contract) | showing(*names),
    )
