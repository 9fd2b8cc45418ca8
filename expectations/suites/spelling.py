"""Why ids of two tables do not meet: the likely cause, found by spelling them alike.

A join on ids that no two tables share loses all behaviour without an error, so a failed look-up says which ids
were sought, which there are, and what most of the missing ones would need to be found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

NUM_SHOWN = 3
LIKELY = 0.5
"""Fraction of the missing ids that must be found for a spelling to be the likely cause."""


@dataclass(frozen=True)
class Spelling:
    """One way in which the same id is written differently.

    Attributes:
        ours, theirs: SQL that spells `id` of either side alike; null where it does not apply.
        cause: what differs, as a clause.
        remedy: what to do, as a sentence.
    """

    ours: str
    theirs: str
    cause: str
    remedy: str


_WHOLE = "CAST(TRY_CAST(TRY_CAST(id AS DOUBLE) AS HUGEINT) AS VARCHAR)"
_BARE = r"nullif(regexp_replace(regexp_replace(id, '^[^0-9]+', ''), '[^0-9]+$', ''), '')"
_PREFIX = "Write the ids with the same prefix and suffix in both tables: in the export, or in the query."

SPELLINGS = (
    Spelling("trim(id)", "trim(id)", "without the blanks around them", "Remove the blanks at the source."),
    Spelling("lower(id)", "lower(id)", "in the same case", "Write the ids in the same case in both tables."),
    Spelling(
        "ltrim(id, '0')",
        "ltrim(id, '0')",
        "without their leading zeros",
        "A spreadsheet drops leading zeros: export the column as text in both tables.",
    ),
    Spelling(
        _WHOLE,
        _WHOLE,
        "as whole numbers",
        "A column of numbers with gaps becomes decimals: write it as whole numbers or as text "
        '(pandas: astype("Int64"), or read it with dtype=str).',
    ),
    Spelling(_BARE, "id", "without what stands around their digits", _PREFIX),
    Spelling("id", _BARE, "with what stands around the others' digits", _PREFIX),
    Spelling(_BARE, _BARE, "by their digits alone", _PREFIX),
)


@dataclass(frozen=True)
class Ids:
    """Two sets of ids that should meet.

    Attributes:
        ours, theirs: SQL queries of distinct ids, one column `id`.
        others: the tables that `theirs` are of, in words.
    """

    ours: str
    theirs: str
    others: str


def explain(
    connection: "duckdb.DuckDBPyConnection", ids: Ids, tell: Callable[[str], str] = str
) -> tuple[str, str | None]:
    """A sentence on what the others have, and the remedy of the likely cause, if one is found.

    `tell` says how an id is told.
    """
    theirs = f"theirs AS MATERIALIZED ({ids.theirs})"
    there = connection.execute(
        f"WITH {theirs} SELECT id FROM theirs ORDER BY id LIMIT {NUM_SHOWN}"  # noqa: S608
    ).fetchall()
    seen = ", ".join(tell(row[0]) for row in there)
    has = f"{ids.others} {'have' if ' and ' in ids.others else 'has'} {'ids such as ' + seen if there else 'none'}"
    missing = f"missing AS MATERIALIZED (SELECT id FROM ({ids.ours}) ANTI JOIN theirs USING (id))"  # noqa: S608
    for spelling in SPELLINGS:
        found = connection.execute(
            f"WITH {theirs}, {missing}, "  # noqa: S608
            f"alike AS (SELECT {spelling.theirs} AS alike, min(id) AS id FROM theirs GROUP BY 1) "
            "SELECT count(*), count(alike.id), arg_min(alike.id, ours.id) "
            f"FILTER (alike.id IS NOT NULL), min(ours.id) FILTER (alike.id IS NOT NULL) "
            f"FROM (SELECT id, {spelling.ours} AS alike FROM missing) AS ours LEFT JOIN alike USING (alike)"
        ).fetchall()[0]
        num_missing, num_found, their_id, our_id = found
        if num_found and num_found >= LIKELY * num_missing:
            cause = (
                f"{num_found:,} of {num_missing:,} missing ids would be found {spelling.cause}, "
                f"such as {tell(our_id)!r} as {tell(their_id)!r}"
            )
            return f"{has}; {cause}.", spelling.remedy
    return f"{has}.", None
