"""From what a program sends to the contract's types, by the rules of files and in their words.

Programs send JSON's values, so much of what a shop's files need is not asked here: a number is written as programs
write it, a timestamp as ISO 8601. What is the same is what a value becomes, so that a row of a file and the same row
of the ledger have one id: `features.sources.tables.casting` says how, and a test compares the two.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from expectations.contracts.schema import Column, ColumnType
from features.sources.tables.casting import (
    FALSE,
    FREE_TEXTS,
    IDENTIFIER,
    NO_NUMBER,
    NO_VALUE,
    NOUNS,
    NULLS,
    OUTCOME,
    TRUE,
    WORDED,
)

_WHOLE = re.compile(r"-?\d+\.(0{1,2}|0{4,})")
_ROUNDED = re.compile(r"\d[.,]?\d*[eE]\+\d+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
_BLANKS = " \t\r\n\u00a0\ufeff"
_FIRST, _LAST = datetime(1678, 1, 1), datetime(2261, 12, 31)
_BIGINT = 2**63


class UnfitError(ValueError):
    """A value is not what its column holds; the message is the reason, as the quarantine of files words it."""


def cast(column: Column, value: Any) -> Any:
    """A value in the type of its column: str, list of str, naive UTC datetime, int, float, bool; None: missing.

    Raises:
        UnfitError: it is none of that type, or a required one is missing.
    """
    text = _text(column, value)
    found = None
    if text is not None:
        try:
            found = _CASTS[column.type](column, text)
        except UnfitError:
            raise
        except (ValueError, OverflowError):
            noun = OUTCOME if column.name in WORDED else NOUNS[column.type]
            raise _unfit(column, value, noun) from None
    if found is None and column.required:
        raise UnfitError(f"{column.name}: the required value is missing")
    return found


def check_document(name: str, value: Any) -> None:
    """Check that JSON of any shape can be kept: PostgreSQL's JSONB holds no NUL, and UTF-8 no half of a pair.

    Raises:
        UnfitError: it cannot.
    """
    match value:
        case str():
            _check_text(name, value)
        case float() if not math.isfinite(value):
            raise UnfitError(f"{name}: {value} is no JSON")
        case None | bool() | int() | float():
            return
        case Mapping():
            for key, part in value.items():
                check_document(name, key)
                check_document(name, part)
        case list() | tuple():
            for part in value:
                check_document(name, part)
        case _:
            raise UnfitError(f"{name}: a {type(value).__name__} is no JSON")


def _text(column: Column, value: Any) -> str | None:
    """A value as the text that a file would have; None where it is missing."""
    match value:
        case None:
            return None
        case bool():
            text = str(value).lower()
        case float() if math.isnan(value):
            return None
        case float() if value.is_integer() and abs(value) < 2**53:
            text = str(int(value))
        case Decimal():
            text = re.sub(r"\.0+$", "", format(value, "f"))
        case datetime():
            text = value.isoformat()
        case list() | tuple() if column.type == "strings" and all(isinstance(part, str) for part in value):
            text = json.dumps(value, ensure_ascii=False)
        case str() | int() | float():
            text = str(value)
        case _:
            raise _unfit(column, value, NOUNS[column.type])
    _check_text(column.name, text)
    return _given(column, text)


def _given(column: Column, text: str) -> str | None:
    bare = text.strip(_BLANKS)
    dash = column.type == "boolean" or column.name in WORDED
    words = () if column.type in ("string", "strings") else NO_VALUE if dash else (*NO_VALUE, *NO_NUMBER)
    if bare in NULLS or bare.lower() in words:
        return None
    free = column.name in FREE_TEXTS or column.extra == "text"
    return text if free and column.type == "string" else bare


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnfitError(f"{name}: its bytes are not UTF-8") from None
    if "\0" in text:
        raise UnfitError(f"{name}: it has the character NUL, which cannot be kept")


def _unfit(column: Column, value: Any, noun: str) -> UnfitError:
    shown = json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else str(value)
    return UnfitError(f"{column.name}: '{shown[:80]}' is not {noun}")


def _string(column: Column, text: str) -> str:
    if column.name.endswith("_id") and _ROUNDED.fullmatch(text):
        raise _unfit(column, text, IDENTIFIER)
    free = column.name in FREE_TEXTS or column.extra == "text"
    return text if free else _identifier(text)


def _identifier(text: str) -> str:
    if _WHOLE.fullmatch(text):
        return text.partition(".")[0]
    return text.lower() if text in ("True", "TRUE", "False", "FALSE") else text


def _strings(_column: Column, text: str) -> list[str]:
    if text.startswith("["):
        parts = json.loads(text)
        if not isinstance(parts, list):
            raise ValueError(text)
        return [_identifier(str(part)) for part in parts]
    return [_identifier(part.strip()) for part in text.split("|") if part.strip()]


def _timestamp(_column: Column, text: str) -> datetime:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    found = datetime.fromisoformat(text)
    found = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    if not _FIRST <= found <= _LAST:
        raise ValueError(text)
    return found


def _number(column: Column, text: str) -> float:
    word = text.lower()
    worded = column.name in WORDED
    if word in (TRUE if worded else ("true",)):
        return 1.0
    if word in (FALSE if worded else ("false",)):
        return 0.0
    number = float(text)
    if "_" in text or not math.isfinite(number):
        raise ValueError(text)
    return number


def _integer(column: Column, text: str) -> int:
    number = _number(column, text)
    if number != math.trunc(number) or abs(number) >= _BIGINT:
        raise ValueError(text)
    return int(number)


def _boolean(_column: Column, text: str) -> bool:
    word = text.lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError(text)
    return word in TRUE


_CASTS: Mapping[ColumnType, Callable[[Column, str], Any]] = MappingProxyType(
    {
        "string": _string,
        "strings": _strings,
        "timestamp": _timestamp,
        "integer": _integer,
        "number": _number,
        "boolean": _boolean,
    }
)
