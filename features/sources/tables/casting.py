"""From a shop's columns to the contract's types: what cannot be cast is rejected with a reason.

The rules:
- A timestamp without a zone is UTC; one with a zone is converted. Numbers are no timestamps.
- A text that is blank, and a floating-point NaN, is a missing value; the word nan is no number.
- A whole floating-point number becomes an identifier without its ".0": data frames turn the
  identifiers of a column with missing values into floats.
- A list is a list, a JSON list, or texts between "|".
- A whole number may be written 3.0 but not 3.5. Infinity is no number.
"""

from collections.abc import Mapping
from types import MappingProxyType

from expectations.contracts.schema import Column, ColumnType
from features.sources.staging import SQL_TYPES

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_INTEGERS = frozenset((*_SIGNED, *(f"U{name}" for name in _SIGNED)))
_FLOATS = frozenset(("FLOAT", "DOUBLE"))
_EXACT_FLOAT = 2**53

_NOUNS: Mapping[ColumnType, str] = MappingProxyType(
    {
        "string": "text",
        "strings": "a list of texts",
        "timestamp": "a timestamp",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
)


def cast_column(raw: str, raw_type: str, column: Column) -> tuple[str, str]:
    """SQL that brings a raw column, given in SQL with its DuckDB type, to a contract's column.

    Returns:
        The cast value, null where the raw value is missing or cannot be cast; and why the row must be
        rejected, null where it need not.
    """
    text = _as_text(raw, raw_type)
    value = _native(raw, raw_type, column.type) or _from_text(text, column.type)
    shown = f"left(CAST({raw} AS VARCHAR), 80)"
    name = column.name.replace("'", "''")
    cases = [
        f"WHEN ({text}) IS NOT NULL AND ({value}) IS NULL "
        f"THEN '{name}: ''' || {shown} || ''' is not {_NOUNS[column.type]}'"
    ]
    if raw_type == "BLOB":  # bytes that are not UTF-8 have no text, yet are not missing
        cases.append(f"WHEN {raw} IS NOT NULL AND ({text}) IS NULL THEN '{name}: its bytes are not UTF-8'")
    if column.required:
        cases.append(f"WHEN ({text}) IS NULL THEN '{name}: the required value is missing'")
    return f"CAST({value} AS {SQL_TYPES[column.type]})", f"CASE {' '.join(cases)} END"


def _as_text(raw: str, raw_type: str) -> str:
    """The raw value as text, null where it is missing."""
    if raw_type in _FLOATS:
        return (
            f"CASE WHEN isnan({raw}) THEN NULL "
            f"WHEN {raw} = trunc({raw}) AND abs({raw}) < {_EXACT_FLOAT} "
            f"THEN CAST(TRY_CAST({raw} AS BIGINT) AS VARCHAR) ELSE CAST({raw} AS VARCHAR) END"
        )
    text = f"TRY(decode({raw}))" if raw_type == "BLOB" else f"CAST({raw} AS VARCHAR)"
    return f"CASE WHEN trim({text}) = '' THEN NULL ELSE {text} END"


def _native(raw: str, raw_type: str, target: ColumnType) -> str | None:
    """SQL for a raw column that has the type already; None where it has not."""
    if target == "timestamp" and (raw_type == "DATE" or raw_type.startswith("TIMESTAMP")):
        return _bounded(f"TRY_CAST({raw} AS TIMESTAMP)")
    if target == "number" and (raw_type in _INTEGERS | _FLOATS or raw_type.startswith("DECIMAL")):
        return f"CASE WHEN isfinite(CAST({raw} AS DOUBLE)) THEN CAST({raw} AS DOUBLE) END"
    if target == "integer" and raw_type in _INTEGERS:
        return f"TRY_CAST({raw} AS BIGINT)"
    if target == "boolean" and raw_type == "BOOLEAN":
        return raw
    if target == "strings" and raw_type.endswith("[]"):
        return f"CAST({raw} AS VARCHAR[])"
    return None


def _from_text(text: str, target: ColumnType) -> str:
    if target == "timestamp":
        return _bounded(f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)")
    if target == "number":
        number = f"TRY_CAST({text} AS DOUBLE)"
        return f"CASE WHEN isfinite({number}) THEN {number} END"
    if target == "integer":
        whole = f"TRY_CAST({text} AS BIGINT)"
        return f"CASE WHEN CAST({whole} AS DOUBLE) = TRY_CAST({text} AS DOUBLE) THEN {whole} END"
    if target == "boolean":
        return f"TRY_CAST(trim({text}) AS BOOLEAN)"
    if target == "strings":
        parts = (
            f"list_filter(list_transform(string_split({text}, '|'), lambda x: trim(x)), lambda x: x <> '')"
        )
        from_json = f"""TRY(from_json({text}, '["VARCHAR"]'))"""
        return f"CASE WHEN starts_with(ltrim({text}), '[') THEN {from_json} ELSE {parts} END"
    return text


def _bounded(timestamp: str) -> str:
    """A timestamp that calendars of other programs can hold; null for infinity and the far future."""
    return f"CASE WHEN {timestamp} BETWEEN TIMESTAMP '1678-01-01' AND TIMESTAMP '2261-12-31' THEN {timestamp} END"
