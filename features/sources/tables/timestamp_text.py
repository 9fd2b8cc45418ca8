"""Timestamps as people write them, and what to declare where they cannot be read with certainty.

Read without a declaration is what begins with the year: ISO 8601 with its zones, `2024/04/17 17:22`,
`2024-04-17 17:22:00 +0100`, `…[Europe/Berlin]`. Day and month are never guessed: `03/04/2024`, and numbers, need
a `timestamp_format` or a `timestamp_unit`, which `propose` finds from the values.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from expectations.contracts.file_format import FileFormat
from expectations.suites.rules import literal

_SIMPLE = r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
_ZONED = r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z| ?[+-]\d{2}:?\d{2})"
_YEAR_FIRST = r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ]+(\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)\s*(.*))?$"
_COMPACT = r"^(\d{4})(\d{2})(\d{2})T(\d{2}):?(\d{2})"
_OFFSET = r"^(?:UTC|GMT)?([+-]\d{2}):?(\d{2})?(?:\s*\[[^\]]*\])?$"
_REGION = r"^\[?([A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+)\]?$"
_HOURS = {
    **{"Z": 0, "UTC": 0, "GMT": 0, "UT": 0, "[UTC]": 0, "Z[UTC]": 0, "WET": 0, "WEST": 1, "CET": 1, "MEZ": 1},
    **{"CEST": 2, "MESZ": 2, "EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11},
    **{"EST": -5, "EDT": -4, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7},
}
"""Abbreviations that mean one offset, as PostgreSQL reads them. CST, IST and BST mean several and are refused."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NUMBER = r"[-+]?\d+([.,]\d*)?([eE]\+?\d+)?"


def timestamp_from_text(text: str, form: FileFormat) -> str:
    """SQL of the TIMESTAMP in UTC that a text says, null where it says none.

    Args:
        text: SQL of a text without blanks around it, null where the value is missing.
        form: the table's format.
    """
    readings = [_by_format(text, pattern, form) for pattern in form.timestamp_format]
    if form.timestamp_unit:
        readings.append(_by_unit(text, form))
    if not any(pattern.startswith(("%Y", "%y")) for pattern in form.timestamp_format):
        simple = f"regexp_full_match({text}, {literal(_SIMPLE)})"
        local = in_utc(f"TRY_CAST({text} AS TIMESTAMP)", form)
        spaced = f"regexp_replace({text}, ' ?([+-][0-9]{{2}}):?([0-9]{{2}})$', '\\1:\\2')"
        readings.append(
            f"CASE WHEN {simple} THEN {local} WHEN regexp_full_match({text}, {literal(_ZONED)}) "
            f"THEN TRY_CAST({spaced} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' ELSE {_year_first(text, form)} END"
        )
    return f"COALESCE({', '.join(readings)})"


def in_utc(local: str, form: FileFormat) -> str:
    """SQL of a TIMESTAMP without a zone, read in the table's zone, as one in UTC."""
    return f"timezone({literal(form.timezone)}, {local}) AT TIME ZONE 'UTC'" if form.timezone else local


def _by_format(text: str, pattern: str, form: FileFormat) -> str:
    parsed = f"try_strptime({text}, {literal(pattern)})"
    return f"{parsed} AT TIME ZONE 'UTC'" if re.search("%[zZ]", pattern) else in_utc(parsed, form)


def _by_unit(text: str, form: FileFormat) -> str:
    number = f"TRY_CAST(replace({text}, ',', '.') AS DOUBLE)"
    if form.timestamp_unit == "excel":
        since = f"to_milliseconds(CAST(round({number} * 86400000) AS BIGINT))"
        counted = in_utc(f"TIMESTAMP '1899-12-30' + {since}", form)
    else:
        per_second = _PER_SECOND[str(form.timestamp_unit)]
        micros = f"round({number} * {10**6 / per_second!r})"
        if per_second >= 10**6:  # a double does not hold all their digits
            micros = f"COALESCE(TRY_CAST({text} AS HUGEINT) // {per_second // 10**6}, {micros})"
        counted = f"TRY(make_timestamp(TRY_CAST({micros} AS BIGINT)))"
    return f"CASE WHEN regexp_full_match({text}, {literal(_NUMBER)}) THEN {counted} END"


def _year_first(text: str, form: FileFormat) -> str:
    """SQL for the other forms that begin with the year, with or without a zone."""
    spread = text
    for pattern, by in ((_COMPACT + r":?(\d{2})", r"\1-\2-\3T\4:\5:\6"), (_COMPACT, r"\1-\2-\3T\4:\5")):
        spread = f"regexp_replace({spread}, {literal(pattern)}, {literal(by)})"

    def part(group: int) -> str:
        return f"regexp_extract({spread}, {literal(_YEAR_FIRST)}, {group})"

    clock = f"CASE WHEN {part(4)} = '' THEN '00:00' ELSE replace({part(4)}, ',', '.') END"
    local = f"TRY_CAST({part(1)} || '-' || {part(2)} || '-' || {part(3)} || ' ' || {clock} AS TIMESTAMP)"
    zone = part(5)
    offset = f"regexp_replace({zone}, {literal(_OFFSET)}, '\\1:\\2')"
    offset = f"CASE WHEN ends_with({offset}, ':') THEN {offset} || '00' ELSE {offset} END"
    named = " ".join(f"WHEN {literal(name)} THEN '{hours:+03d}:00'" for name, hours in _HOURS.items())
    suffix = (
        f"CASE WHEN regexp_matches({zone}, {literal(_OFFSET)}) THEN {offset} "
        f"WHEN regexp_matches({zone}, {literal(_REGION)}) "
        f"THEN ' ' || regexp_extract({zone}, {literal(_REGION)}, 1) "
        f"ELSE CASE upper({zone}) {named} END END"
    )
    zoned = f"TRY_CAST(CAST({local} AS VARCHAR) || {suffix} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
    return f"CASE WHEN {zone} = '' THEN {in_utc(local, form)} ELSE {zoned} END"


_DATES = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d", "%m.%d.%Y"),
    *("%d %b %Y", "%d %B %Y", "%d. %B %Y", "%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y"),
    *(
        "%d.%m.%y",
        "%d/%m/%y",
        "%m/%d/%y",
        "%d-%m-%y",
        "%m-%d-%y",
        "%y-%m-%d",
        "%Y年%m月%d日",
        "%Y-%m-%d",
        "%Y/%m/%d",
    ),
)
_CLOCKS = (
    *("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S.%f", ", %H:%M", ", %H:%M:%S"),
    *("T%H:%M:%S", " %H:%M:%S %z", " %I:%M%p"),
)
_WHOLE = (
    *("%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S %z", "%Y%m%d%H%M%S"),
    *("%H:%M %d.%m.%Y", "%H:%M:%S %d.%m.%Y", "%H:%M %d/%m/%Y", "%H:%M %m/%d/%Y"),
)
_UNITS = (("excel", 2e4, 8e4), ("s", 1e8, 1e11), ("ms", 1e11, 1e14), ("us", 1e14, 1e17), ("ns", 1e17, 9e18))
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def propose(values: Sequence[str]) -> str:
    """What to declare so that these timestamps are read, as a clause for a message."""
    formats = _covering(values)
    if formats:
        first = formats[0]
        same = [
            one for one in formats if {_parsed(v, one) for v in values} == {_parsed(v, first) for v in values}
        ]
        if len(same) == len(formats):
            return f'timestamp_format = "{first}"'
        listed = " or ".join(f'"{one}"' for one in formats[:3])
        return f"timestamp_format = {listed}: these values do not say which is the day and which the month"
    numbers = [float(v.replace(",", ".")) for v in values if re.fullmatch(_NUMBER, v)]
    if len(numbers) == len(values):
        middle = sorted(numbers)[len(numbers) // 2]
        for unit, low, high in _UNITS:
            if low <= middle < high:
                return f'timestamp_unit = "{unit}": {_meaning(middle, unit)}'
        return 'timestamp_unit = "s", "ms", "us", "ns" or "excel", whichever these numbers count'
    return _several(list(values))


def _meaning(number: float, unit: str) -> str:
    if unit == "excel":
        when = datetime(1899, 12, 30) + timedelta(days=number)
        return f"{number:g} looks like a day number of a spreadsheet and would be {when:%Y-%m-%d %H:%M}"
    when = datetime(1970, 1, 1) + timedelta(seconds=number / _PER_SECOND[unit])
    return f"{number:.0f} looks like {_WORDS[unit]} since 1970 and would be {when:%Y-%m-%d %H:%M}"


def _several(left: list[str]) -> str:
    """Formats that together read most values, those that read the most first."""
    chosen = []
    while left:
        found, best = max(
            ((sum(_parsed(v, one) is not None for v in left), one) for one in _all()), key=lambda x: x[0]
        )
        if not found:
            break
        chosen.append(best)
        left = [v for v in left if _parsed(v, best) is None]
    if not chosen:
        return 'timestamp_format, such as "%d.%m.%Y %H:%M", or write them as 2024-04-17 17:22:00'
    rest = f" (no format is known for '{left[0]}')" if left else ""
    listed = ", ".join(f'"{one}"' for one in chosen)
    return f"timestamp_format = [{listed}]{rest}; check which is the day and which the month"


def _covering(values: Sequence[str]) -> list[str]:
    candidates: Iterable[str] = _all()
    for value in values:
        candidates = [one for one in candidates if _parsed(value, one) is not None]
    return list(candidates)


def _all() -> list[str]:
    return [*_WHOLE, *(date + clock for date in _DATES for clock in _CLOCKS)]


def _parsed(value: str, pattern: str) -> datetime | None:
    try:
        found = datetime.strptime(value, pattern)
    except ValueError:
        return None
    return found if 1900 <= found.year < 2200 else None  # else the digits of another number
