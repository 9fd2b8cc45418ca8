"""What a shop is told of a table too many of whose rows are rejected: the reasons, samples, what to declare."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from expectations.contracts.schema import Table
from expectations.storage.masking import OPEN, Mask
from features.sources.staging import REASONS, STAGED
from features.sources.tables.casting import IDENTIFIER, NOUNS, OUTCOME
from features.sources.tables.timestamp_text import propose

_HIDDEN_REMEDY = "set what these values need; `python -m features.sources` shows them and says what"
_NUM_REASONS, _NUM_SAMPLES, _NUM_VALUES = 3, 3, 300


@dataclass(frozen=True, kw_only=True)
class _Reason:
    """One reason, of many rows: `values` are the distinct ones with their rows, the most frequent first."""

    column: str
    what: str
    num_rows: int
    values: Mapping[str, int]


def explain(
    con: duckdb.DuckDBPyConnection,
    contract: Table,
    num_rows: int,
    num_rejected: int,
    bound: float,
    mask: Mask = OPEN,
) -> str:
    """The message on a staged table of which more is rejected than tolerated; it shows no masked value."""
    reasons = _reasons(con)
    listed = "".join(f"\n  - {_line(contract, reason, mask)}" for reason in reasons[:_NUM_REASONS])
    more = f"\n  - and {len(reasons) - _NUM_REASONS} more" if len(reasons) > _NUM_REASONS else ""
    total = num_rows + num_rejected
    which = "all" if not num_rows else f"{num_rejected:,} of"
    return (
        f"{contract.name}: {which} {total:,} rows are rejected ({num_rejected / total:.1%}, more than the "
        f"tolerated {bound:.0%}); nothing landed{listed}{more}\n"
        f"Correct the data, or the mapping in [tables.{contract.name}] of source.toml."
    )


def _reasons(con: duckdb.DuckDBPyConnection) -> list[_Reason]:
    """The reasons by column and kind, those of most rows first."""
    counted = con.execute(
        r"""
        WITH told AS (SELECT unnest(__reasons) AS reason FROM staged WHERE __reasons IS NOT NULL),
        parts AS (
            SELECT
                regexp_extract(reason, '^(\w+): ''(.*)'' (is not .*)$', ['name', 'value', 'what'], 's') AS quoted,
                regexp_extract(reason, '^(\w+): (.*)$', ['name', 'what'], 's') AS plain,
                regexp_extract(reason, '^line \d+: (.*)$', 1, 's') AS line, reason
            FROM told
        ),
        split AS (
            SELECT
                CASE WHEN line <> '' THEN '' ELSE plain.name END AS name,
                CASE WHEN line <> '' THEN 'a line is no row' WHEN quoted.name <> '' THEN quoted.what
                    ELSE plain.what END AS what,
                CASE WHEN line <> '' THEN reason WHEN quoted.name <> '' THEN quoted.value END AS value
            FROM parts
        ),
        counted AS (SELECT name, what, value, count(*) AS num_rows FROM split GROUP BY ALL)
        SELECT name, what, sum(num_rows)::BIGINT, list({'value': value, 'num_rows': num_rows}
            ORDER BY num_rows DESC, value) FILTER (value IS NOT NULL)
        FROM counted GROUP BY name, what ORDER BY 3 DESC, name
        """.replace("__reasons", REASONS).replace("staged", STAGED)
    ).fetchall()
    return [
        _Reason(
            column=column,
            what=what,
            num_rows=num_rows,
            values={one["value"]: one["num_rows"] for one in (values or [])[:_NUM_VALUES]},
        )
        for column, what, num_rows, values in counted
    ]


def _line(contract: Table, reason: _Reason, mask: Mask) -> str:
    hidden = mask.key and reason.column in contract.personal
    told = [mask(reason.column, value) if hidden else f"'{value}'" for value in reason.values]
    samples = ", ".join(told[:_NUM_SAMPLES])
    where = f"{reason.column or 'the file'}{'' if reason.what.startswith('is not') else ':'}"
    such = f", such as {samples}" if samples else ""
    remedy = _HIDDEN_REMEDY if hidden else _remedy(reason)
    declare = f" In source.toml, [tables.{contract.name}.format]: {remedy}." if remedy else ""
    return f"{where} {reason.what} in {reason.num_rows:,} rows{such}.{declare}"


def _remedy(reason: _Reason) -> str | None:
    """What to declare, as a clause; None where nothing can be declared."""
    values = list(reason.values)
    if not reason.column:
        return "set delimiter, quote or escape, if the lines are sound"
    if reason.what == f"is not {NOUNS['timestamp']}":
        return f"set {propose(values)}"
    if reason.what in (f"is not {NOUNS['boolean']}", f"is not {OUTCOME}"):
        counted = ", ".join(f"'{value}' ({rows:,} rows)" for value, rows in list(reason.values.items())[:8])
        return f"say in true_values, false_values or null_values what these words mean: {counted}"
    if reason.what in (f"is not {NOUNS['number']}", f"is not {NOUNS['integer']}"):
        return _number_remedy(values)
    if reason.what == f"is not {IDENTIFIER}":
        return "nothing can mend it; export the column as text"
    return None


def _number_remedy(values: Sequence[str]) -> str:
    texts = [value for value in values if not any(character.isdigit() for character in value)]
    if len(texts) == len(values):
        return f"set null_values = {json.dumps(texts[:8], ensure_ascii=False)}, if they mean that there is no value"
    return 'set decimal and thousands, such as decimal = "," and thousands = "."; a unit cannot be read'
