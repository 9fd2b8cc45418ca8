"""Numbers as people write them: `1.234,50 €`, `(12.00)`, `1'000`, `12 %`.

Which separator is the decimal one is never decided value by value. `12,50` says by itself that the comma is,
`1,234.5` that the point is; `1.234` can be either. A column without a comma is read as programs write
numbers. One whose values speak for both, or that has a `1.234` beside a decimal comma, is refused with both
readings, unless `[tables.X.format]` says which.
"""

from dataclasses import dataclass

import duckdb

from expectations.contracts.file_format import FileFormat
from expectations.errors import SchemaError
from expectations.suites.rules import literal

_CODES = "EUR|USD|GBP|CHF|JPY|CNY|RMB|HKD|TWD|KRW|INR|RUB|PLN|CZK|HUF|RON|BGN|SEK|NOK|DKK|ISK|TRY|BRL|MXN|ARS"
_CODES += "|CLP|COP|CAD|AUD|NZD|SGD|ZAR|ILS|AED|SAR|THB|IDR|VND|PHP|MYR|UAH"
CURRENCY = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|{_CODES}|Rs\.?|zł|Kč|Ft|kr\.?|Fr\.|元|円|Euro?)"
_SAME = {
    "€": "EUR",
    "₹": "INR",
    "Rs.": "INR",
    "Rs": "INR",
    "Euro": "EUR",
    "Eur": "EUR",
    "£": "GBP",
    "元": "CNY",
    "RMB": "CNY",
    "円": "JPY",
    "zł": "PLN",
    "Kč": "CZK",
    "Ft": "HUF",
    "Fr.": "CHF",
}

_OTHER = {".": ",", ",": "."}
_NAMES = {".": "point", ",": "comma"}


@dataclass(frozen=True, kw_only=True)
class NumberForm:
    """How the numbers of one column are written.

    Attributes:
        decimal: "." or ",".
        thousands: the only separator of thousands; None: the other of "." and ",", blanks and apostrophes.
    """

    decimal: str = "."
    thousands: str | None = None


def declared_form(form: FileFormat) -> NumberForm | None:
    """The form that a declaration settles, if it does."""
    decimal = form.decimal or _OTHER.get(form.thousands or "")
    return NumberForm(decimal=decimal, thousands=form.thousands) if decimal else None


def number_from_text(text: str, bare: str, form: NumberForm) -> str:
    """SQL of the DOUBLE that a text says, null where it says none; infinity is no number.

    Args:
        text: SQL of a text, null where the value is missing.
        bare: SQL of what `bare_number` makes of it.
        form: how the column's numbers are written.
    """
    groups = form.thousands or " '" + _OTHER[form.decimal]
    whole = [r"\d+", rf"\d{{1,3}}([{groups}]\d{{3}})+"]
    if "," in groups:
        whole.append(r"\d{1,2}(,\d{2})+,\d{3}")  # as India groups
    pattern = rf"[-+]?({'|'.join(whole)})?(\{form.decimal}\d*)?([eE][-+]?\d+)?"
    digits = f"replace(translate({bare}, {literal(groups)}, ''), ',', '.')"
    fits = f"regexp_full_match({bare}, {literal(pattern)})"
    number = f"TRY_CAST({digits} AS DOUBLE) / CASE WHEN contains({text}, '%') THEN 100 ELSE 1 END"
    return f"CASE WHEN {fits} AND isfinite({number}) THEN {number} END"


def find_form(
    con: duckdb.DuckDBPyConnection, raw: str, text: str, table: str, column: str
) -> NumberForm | None:
    """The form of one column's numbers, from all its values.

    Args:
        con: the connection.
        raw: the relation that has the column.
        text: SQL of its text there.
        table: the contract's table, and
        column: its column, for messages.

    Returns:
        The form; None where all are written as programs write numbers.

    Raises:
        SchemaError: the numbers can be read in two ways, percentages stand beside plain numbers, or there
            are two currencies.
    """
    texts = f"(SELECT {text} AS t FROM {raw})"  # noqa: S608 — SQL of ours
    odd = "count(t) FILTER (TRY_CAST(t AS DOUBLE) IS NULL)"
    if not con.execute(f"SELECT {odd} FROM {texts}").fetchall()[0][0]:  # noqa: S608
        return None
    classes = {"percent": "contains(t, '%')"}
    classes["no percent"] = "NOT contains(t, '%') AND regexp_matches(t, '[1-9]')"
    for decimal, other in _OTHER.items():
        d, o = rf"\{decimal}", rf"\{other}"
        either = rf"[-+]?[1-9]\d{{0,2}}{d}\d{{3}}"
        grouped = rf"\d{{1,3}}([ '{other}]\d{{2,3}})+{d}\d*|\d{{1,3}}({o}\d{{2,3}}){{2,}}"
        sure = rf"[-+]?(\d*{d}\d*([eE][-+]?\d+)?|{grouped})"
        classes[f"either {decimal}"] = f"regexp_full_match(b, {literal(either)})"
        classes[f"sure {decimal}"] = (
            f"regexp_full_match(b, {literal(sure)}) AND NOT regexp_full_match(b, {literal(either)})"
        )
    counts = [
        f"count(*) FILTER ({sql}), min({{'size': length(t), 't': t}}) FILTER ({sql})"
        for sql in classes.values()
    ]
    currency = f"CASE WHEN regexp_matches(t, '[0-9]') THEN regexp_extract(t, {literal(CURRENCY)}) END"
    counted = con.execute(
        f"SELECT list(DISTINCT {currency}) FILTER ({currency} <> ''), {', '.join(counts)} "  # noqa: S608
        f"FROM (SELECT t, {bare_number('t')} AS b FROM {texts})"
    ).fetchall()[0]
    evidence = {
        name: (count, sample["t"])
        for name, count, sample in zip(classes, counted[1::2], counted[2::2], strict=True)
        if count
    }
    currencies = {_SAME.get(found, found) for found in counted[0] or []}
    if len(currencies) > 1:
        raise SchemaError(
            f"{table}: {column} has amounts in {' and in '.join(sorted(currencies)[:3])}; "
            "bring them in one currency, the shop's"
        )
    if {"percent", "no percent"} <= evidence.keys():
        raise SchemaError(
            f"{table}: {column} can be read in two ways: {_shown(evidence, 'percent')} stands beside "
            f"{_shown(evidence, 'no percent')}, which may be a percentage or not; write all in one way"
        )
    return NumberForm(decimal=_decimal(evidence, table, column))


def _decimal(evidence: dict[str, tuple[int, str]], table: str, column: str) -> str:
    for decimal, other in ((",", "."), (".", ",")):
        clear = f"sure {decimal}" in evidence and f"sure {other}" not in evidence
        if clear and f"either {other}" not in evidence:
            return decimal
    if not evidence.keys() & {"sure ,", "sure .", "either ,"}:
        return "."
    unclear = next(name for name in ("either .", "either ,", "sure .") if name in evidence)
    mark = unclear[-1]
    beside = [
        name
        for name in (f"sure {_OTHER[mark]}", f"sure {mark}", f"either {_OTHER[mark]}")
        if name in evidence
    ]
    value = evidence[unclear][1]
    digits = value.replace(mark, "")
    fraction = value.replace(mark, ".")
    raise SchemaError(
        f"{table}: {column} can be read in two ways: {_shown(evidence, unclear)}"
        + (f" beside {_shown(evidence, beside[0])}" if beside else "")
        + f"; '{value}' is {digits} if the {_NAMES[mark]} separates thousands, and {fraction} if it is the decimal "
        f'sign. Say which in source.toml: [tables.{table}.format] decimal = "{_OTHER[mark]}" and thousands = "{mark}", '
        f'or decimal = "{mark}"; of a query, cast the column there'
    )


def _shown(evidence: dict[str, tuple[int, str]], name: str) -> str:
    count, sample = evidence[name]
    return f"'{sample}' ({count:,} rows)"


def bare_number(text: str) -> str:
    """SQL of a number's sign, digits and separators: no currency, no percent sign, the sign in front."""
    odd, plain = "\u2212\u2019`\u00a0\u202f\u2009", "-''   "
    sql = f"trim(translate({text}, {literal(odd)}, {literal(plain)}))"
    for pattern, by in (
        (rf"^([-+(]?)\s*{CURRENCY}\s*", r"\1"),
        (rf"\s*{CURRENCY}\s*(\)?-?)$", r"\1"),
        (r"([.,])(-|–|—)+$", r"\100"),  # 12,— is 12,00 and no negative number
        (r"\s*%\s*(\)?)$", r"\1"),
        (r"^\((.+)\)$", r"-\1"),
        (r"^([^-].*)-$", r"-\1"),
        (r"^([-+])\s+", r"\1"),
    ):
        sql = f"regexp_replace({sql}, {literal(pattern)}, {literal(by)})"
    return f"CASE WHEN regexp_full_match({text}, '-?[0-9.,]*[0-9]') THEN {text} ELSE {sql} END"
