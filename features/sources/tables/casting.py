r"""From a shop's columns to the contract's types: what cannot be cast is rejected with a reason.

One rule for CSV, Parquet and SQL, whatever type the source gives a value:
- A text that is blank or a word for nothing (`NULL`, `NaN`, `\N`), and a floating-point NaN, is a missing value.
- An identifier or a category is a text without blanks around it; `200.0` is `200`, since data frames turn the
  identifiers of a column with missing values into floats. An identifier that was rounded
  (`1.23E+12`) is rejected.
- A timestamp without a zone is in the declared zone, else UTC; one with a zone is converted. What is not
  certain needs a declaration, see `timestamp_text`, and so do numbers, see `number_text`.
- True and false may be written in common words; an outcome is a number, of which they are 1 and 0.
- A list is a list, a list as JSON or Python writes it, or texts between "|".
- A whole number may be written 3.0 but not 3.5. Infinity is no number.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from expectations.contracts.file_format import FileFormat
from expectations.contracts.schema import Column, ColumnType
from expectations.suites.rules import literal, quoted
from features.sources.staging import SQL_TYPES
from features.sources.tables.number_text import NumberForm, bare_number, number_from_text
from features.sources.tables.timestamp_text import in_utc, timestamp_from_text

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_INTEGERS = frozenset((*_SIGNED, *(f"U{name}" for name in _SIGNED)))
_FLOATS = frozenset(("FLOAT", "DOUBLE"))
_EXACT_FLOAT = 2**53
_BLANKS = " \t\r\n\u00a0\ufeff"

NULLS = ("", "NULL", "null", r"\N", "NaN", "nan", "<NA>", "NaT", "#N/A")
"""Words for a missing value in any column; other words may be names."""
NO_VALUE = ("na", "n/a", "none", "nil", "(null)", "#nv", "undefined")
"""Words for a missing value, in small letters, where a text cannot be a value."""
NO_NUMBER = ("-", "–", "—", "?", "0000-00-00", "0000-00-00 00:00:00")
"""The same of numbers and timestamps; a dash may be a false outcome."""

TRUE: tuple[str, ...] = (
    *("true", "t", "yes", "y", "on", "1", "oui", "vrai", "ja", "j", "wahr", "sí", "si", "sì", "sim"),
    *("verdadero", "verdadeiro", "vero", "tak", "да", "是", "对", "はい"),
)
FALSE: tuple[str, ...] = (
    *("false", "f", "no", "n", "off", "0", "non", "faux", "nein", "falsch", "não", "nao"),
    *("falso", "nie", "нет", "否", "不是", "いいえ"),
)

FREE_TEXTS = frozenset(("text", "query_text"))
WORDED = frozenset(("outcome",))
"""Numbers that may be said in words of true and false."""

NOUNS: Mapping[ColumnType, str] = MappingProxyType(
    {
        "string": "text",
        "strings": "a list of texts",
        "timestamp": "a timestamp",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
)
IDENTIFIER = "an identifier, but what a spreadsheet or a data frame rounded"
OUTCOME = "an outcome: yes or no, 0 or 1, or a grade"
"""What a value of each type is, in reasons."""


@dataclass(frozen=True, kw_only=True)
class Casting:
    """How one raw column becomes a contract's column.

    Attributes:
        column: the contract's.
        raw: SQL of the raw value.
        raw_type: its DuckDB type.
        form: the table's format.
        number: how the column's texts write numbers; None: as programs do.
    """

    column: Column
    raw: str
    raw_type: str
    form: FileFormat
    number: NumberForm | None = None

    @property
    def is_text(self) -> bool:
        """Whether numbers must be read from texts."""
        return self.raw_type in ("VARCHAR", "BLOB") or self.raw_type.startswith("ENUM")

    @property
    def text(self) -> str:
        """SQL of the raw value as text, null where it is missing."""
        raw, kind = self.raw, self.raw_type
        known = f"{raw} IS NOT NULL" + (f" AND (isfinite({raw}) OR isinf({raw}))" if kind in _FLOATS else "")
        if self._native(raw) and not kind.endswith("[]"):
            return f"CASE WHEN {known} THEN '' END"  # nobody reads it
        if kind in _FLOATS:
            whole = f"CAST(TRY_CAST({raw} AS BIGINT) AS VARCHAR)"
            exact = f"{raw} = trunc({raw}) AND abs({raw}) < {_EXACT_FLOAT}"
            return (
                f"CASE WHEN NOT ({known}) THEN NULL WHEN {exact} THEN {whole} ELSE CAST({raw} AS VARCHAR) END"
            )
        if kind.startswith("DECIMAL"):
            return f"regexp_replace(CAST({raw} AS VARCHAR), '\\.0+$', '')"
        if kind.endswith("[]"):
            return f"nullif(array_to_string(CAST({raw} AS VARCHAR[]), '|'), '')"
        text = f"TRY(decode({raw}))" if kind == "BLOB" else f"CAST({raw} AS VARCHAR)"
        return self._given(text) if self.is_text else text

    def _given(self, text: str) -> str:
        """SQL of a text without blanks around it, null where it is a word for nothing."""
        ends = " OR ".join(
            f"starts_with({text}, {b}) OR ends_with({text}, {b})" for b in map(literal, _BLANKS)
        )
        bare = f"CASE WHEN {ends} THEN trim({text}, {literal(_BLANKS)}) ELSE {text} END"
        own = {word.lower() for word in (*self.form.true_values, *self.form.false_values)}
        spellings = [*self.form.null_values]
        if self.column.type not in ("string", "strings"):
            dash = self.column.type == "boolean" or self.column.name in WORDED
            spellings += [word for word in (*NO_VALUE, *(() if dash else NO_NUMBER)) if word not in own]
        missing = f"{bare} IN ({_listed(NULLS)})"
        if spellings:
            missing += f" OR lower({bare}) IN ({_listed(word.lower() for word in spellings)})"
        return f"CASE WHEN {missing} THEN NULL ELSE {text if self._is_free else bare} END"

    def at(self, stage: str) -> str:
        """The column of `cast_rows` that holds "raw", "text", "bare" or "value" of this one."""
        return quoted(f"{self.column.name}.{stage}")

    @property
    def bare(self) -> str:
        """SQL of what a text is without currency and the like, where numbers are not written as programs do."""
        return bare_number(self.at("text")) if self.number else "NULL"

    @property
    def value(self) -> str:
        """SQL of the value, null where there is none."""
        found = self._native(self.at("raw")) or self._from_text(self.at("text"))
        return f"CAST({found} AS {SQL_TYPES[self.column.type]})"

    @property
    def problem(self) -> str:
        """SQL of why the row must be rejected, null where it need not."""
        raw, text = self.at("raw"), self.at("text")
        name = self.column.name
        shown = f"'{name}: ''' || left(CAST({raw} AS VARCHAR), 80) || ''' is not "
        cases = [f"WHEN {text} IS NOT NULL AND {self.at('value')} IS NULL THEN {shown}{self._noun}'"]
        if self.raw_type == "BLOB":  # bytes that are not UTF-8 have no text, yet are not missing
            undecodable = f"{raw} IS NOT NULL AND TRY(decode({raw})) IS NULL"
            cases.append(f"WHEN {undecodable} THEN '{name}: its bytes are not UTF-8'")
        if self.column.required:
            cases.append(f"WHEN {text} IS NULL THEN '{name}: the required value is missing'")
        if name.endswith("_id"):
            rounded = f"contains({text}, '+') AND regexp_full_match({text}, '\\d[.,]?\\d*[eE]\\+\\d+')"
            cases.append(f"WHEN {rounded} THEN {shown}{IDENTIFIER}'")
        return f"CASE {' '.join(cases)} END"

    def _native(self, raw: str) -> str | None:
        """SQL for a raw column that has the type already; None where it has not."""
        kind, target = self.raw_type, self.column.type
        number = kind in _INTEGERS | _FLOATS or kind.startswith("DECIMAL")
        sql = None
        if target == "timestamp" and kind.startswith(("DATE", "TIMESTAMP")):
            zoned = "TZ" in kind or "TIME ZONE" in kind
            local = in_utc(f"TRY_CAST({raw} AS TIMESTAMP)", self.form)
            sql = _bounded(f"TRY_CAST({raw} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'" if zoned else local)
        elif target == "number" and number:
            sql = f"CASE WHEN isfinite(CAST({raw} AS DOUBLE)) THEN CAST({raw} AS DOUBLE) END"
        elif target == "number" and kind == "BOOLEAN":
            sql = f"CAST({raw} AS INTEGER)"
        elif target == "integer" and kind in _INTEGERS:
            sql = f"TRY_CAST({raw} AS BIGINT)"
        elif target == "boolean" and kind == "BOOLEAN":
            sql = raw
        elif target == "strings" and kind.endswith("[]"):
            sql = f"list_transform(CAST({raw} AS VARCHAR[]), lambda x: {_identifier('x')})"
        return sql

    def _from_text(self, text: str) -> str:
        match self.column.type:
            case "timestamp":
                return _bounded(timestamp_from_text(text, self.form))
            case "number":
                known = self._words(text, "1", "0") if self.column.name in WORDED else _said(text, "1", "0")
                return f"CASE {known} ELSE {self._number(text)} END"
            case "integer":
                number = self._number(text)
                return f"CASE WHEN {number} = trunc({number}) THEN TRY_CAST({number} AS BIGINT) END"
            case "boolean":
                number = self._number(text)
                known = self._words(text, "true", "false")
                return f"CASE {known} WHEN {number} = 1 THEN true WHEN {number} = 0 THEN false END"
            case "strings":
                trimmed = f"list_transform(string_split({text}, '|'), lambda x: trim(x))"
                from_json = (
                    f"""COALESCE(TRY(from_json({text}, '["VARCHAR"]')), TRY_CAST({text} AS VARCHAR[]))"""
                )
                parts = f"list_filter({trimmed}, lambda x: x <> '')"
                found = f"CASE WHEN starts_with({text}, '[') THEN {from_json} ELSE {parts} END"
                return f"list_transform({found}, lambda x: {_identifier('x')})"
        return text if self._is_free else _identifier(text, self.form.decimal or ".")

    @property
    def _noun(self) -> str:
        return OUTCOME if self.column.name in WORDED else NOUNS[self.column.type]

    @property
    def _is_free(self) -> bool:
        return self.column.name in FREE_TEXTS or self.column.extra == "text"

    def _number(self, text: str) -> str:
        if self.number:
            return number_from_text(text, self.at("bare"), self.number)
        return f"CASE WHEN isfinite(TRY_CAST({text} AS DOUBLE)) THEN TRY_CAST({text} AS DOUBLE) END"

    def _words(self, text: str, true: str, false: str) -> str:
        """WHEN clauses of the words of true and false, the shop's own before the common ones."""
        own_true, own_false = (
            [w.lower() for w in ws] for ws in (self.form.true_values, self.form.false_values)
        )
        pairs = ((own_true, true), (own_false, false), (TRUE, true), (FALSE, false))
        return " ".join(
            f"WHEN lower({text}) IN ({_listed(spellings)}) THEN {then}"
            for spellings, then in pairs
            if spellings
        )


def cast_rows(relation: str, castings: Sequence[Casting], record: str) -> str:
    """SQL of a relation's rows with the columns `at("raw")`, `at("text")`, `at("value")` of each casting.

    Args:
        relation: SQL of the relation.
        castings: of its columns.
        record: SQL of what becomes the column `__record`.
    """
    first = [f"{sql} AS {c.at(stage)}" for c in castings for stage, sql in (("raw", c.raw), ("text", c.text))]
    levels = (
        [f"{c.bare} AS {c.at('bare')}" for c in castings if c.number],
        [f"{c.value} AS {c.at('value')}" for c in castings],
    )
    sql = f"SELECT {', '.join([f'{record} AS __record', *first])} FROM {relation}"  # noqa: S608 — SQL of ours
    for added in filter(None, levels):
        sql = f"SELECT *, {', '.join(added)} FROM ({sql})"  # noqa: S608
    return sql


def _identifier(text: str, point: str = ".") -> str:
    """SQL of a text that names something: 200.0 is 200, True is true. 1.000 stays, which may be a thousand."""
    whole = rf"-?\d+\{point}(0{{1,2}}|0{{4,}})"
    return (
        f"CASE WHEN ends_with({text}, '0') AND regexp_full_match({text}, '{whole}') "
        f"THEN split_part({text}, '{point}', 1) "
        f"WHEN {text} IN ('True', 'TRUE', 'False', 'FALSE') THEN lower({text}) ELSE {text} END"
    )


def _said(text: str, true: str, false: str) -> str:
    return f"WHEN lower({text}) = 'true' THEN {true} WHEN lower({text}) = 'false' THEN {false}"


def _listed(spellings: Iterable[str]) -> str:
    return ", ".join(literal(word) for word in spellings)


def _bounded(timestamp: str) -> str:
    """A timestamp that calendars of other programs can hold; null for infinity and the far future."""
    return f"CASE WHEN {timestamp} BETWEEN TIMESTAMP '1678-01-01' AND TIMESTAMP '2261-12-31' THEN {timestamp} END"
