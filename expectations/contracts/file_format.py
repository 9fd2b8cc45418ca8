r"""How a table's values are written, where it is not as programs write them: `[tables.X.format]` of a `source.toml`.

[tables.exposures.format]
encoding = "windows-1252"             # of CSV; without it a byte order mark decides, else UTF-8
delimiter = ";"                       # of CSV; without it the first line decides
quote = "'"                           # of CSV; '"' without it; "" where values are not quoted
escape = "\\"                         # of CSV: what stands before a quote in a quoted value; the quote without it
decimal = ","                         # without it the whole column decides
thousands = "."
timestamp_format = "%d.%m.%Y %H:%M"   # one or a list, as strftime writes; ISO 8601 is read without it
timestamp_unit = "ms"                 # of timestamps that are numbers: s, ms, us, ns since 1970, or excel (days)
timezone = "Europe/Berlin"            # of timestamps that name no zone; UTC without it
true_values = ["x"]                   # beside the common words: true, yes, 1, oui, ja, …
false_values = ["-"]
null_values = ["n.a."]                # beside the empty text, NULL, NaN and \N
"""

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from expectations.errors import SettingError

TIMESTAMP_UNITS = ("s", "ms", "us", "ns", "excel")
CSV_SETTINGS = ("encoding", "delimiter", "quote", "escape")
NUMBER_SETTINGS = ("decimal", "thousands")

_DIRECTIVES = re.compile(r"%-?[aAbBdfgHIjmMnpSwyYzZ%]")


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """How one table's values are written; None and the empty tuple: found from the data, or as usual.

    Attributes:
        timestamp_format: strptime formats, tried in this order before ISO 8601.
        timestamp_unit: what a timestamp that is a number counts; "excel": days since 30 December 1899.
        timezone: IANA name of the zone of timestamps that name none; None: UTC.
        true_values, false_values, null_values: words beside the common ones; case does not matter.
    """

    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    timestamp_format: tuple[str, ...] = ()
    timestamp_unit: str | None = None
    timezone: str | None = None
    true_values: tuple[str, ...] = ()
    false_values: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()

    def declared(self, *names: str) -> list[str]:
        """Those of the settings that were declared."""
        return [name for name in names if getattr(self, name)]


def read_format(where: str, declared: Mapping[str, Any]) -> FileFormat:
    """Check a `[tables.X.format]`; `where` names file and section in messages.

    Raises:
        SettingError: a setting is unknown or has no such value.
    """
    known = [setting.name for setting in fields(FileFormat)]
    given: dict[str, Any] = {}
    for name, value in declared.items():
        if name not in known:
            raise SettingError(f"{where} has an unknown setting {name!r}; known: {', '.join(known)}")
        several = name == "timestamp_format" or name.endswith("_values")
        values = value if several and isinstance(value, list) else [value]
        for one in values:
            if not isinstance(one, str) or (problem := _problem(name, one)):
                remedy = problem if isinstance(one, str) else "write a text"
                raise SettingError(f"{where} {name} is {one!r}; {remedy}")
        given[name] = tuple(values) if several else value
    form = FileFormat(**given)
    if form.thousands and form.thousands == form.decimal:
        raise SettingError(f"{where} decimal and thousands are both {form.decimal!r}; they must differ")
    both = {word.casefold() for word in form.true_values} & {word.casefold() for word in form.false_values}
    if both:
        raise SettingError(f"{where} {min(both)!r} is in true_values and in false_values; choose one")
    return form


def _problem(name: str, value: str) -> str | None:
    """What a setting should be; None where it is."""
    if name not in _CHECKS:
        return None
    fits, remedy = _CHECKS[name]
    return None if fits(value) else remedy


def _is_format(text: str) -> bool:
    left = _DIRECTIVES.sub("", text)
    return left != text and "%" not in left


def _is_encoding(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding  # base64 and its kind are codecs, too
    except LookupError:
        return False


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder's name, a path, an unknown zone
        return False
    return True


_CHECKS: Mapping[str, tuple[Callable[[str], bool], str]] = MappingProxyType(
    {
        "encoding": (_is_encoding, 'use a name such as "windows-1252", "utf-16" or "gb18030"'),
        "delimiter": (lambda text: len(text) == 1, r'use one character, such as ";" or "\t"'),
        "quote": (lambda text: len(text) <= 1, "use one character, or the empty text for none"),
        "escape": (lambda text: len(text) <= 1, "use one character, or the empty text for none"),
        "decimal": (lambda text: text in (".", ","), 'use "." or ","'),
        "thousands": (lambda text: text in (".", ",", " ", "'"), """use ".", ",", " " or "'\""""),
        "timestamp_unit": (lambda text: text in TIMESTAMP_UNITS, f"use one of {', '.join(TIMESTAMP_UNITS)}"),
        "timestamp_format": (_is_format, 'write it as strftime, such as "%d.%m.%Y %H:%M"'),
        "timezone": (_is_zone, 'use a name such as "Europe/Berlin"'),
    }
)
