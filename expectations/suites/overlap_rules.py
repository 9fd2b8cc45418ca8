"""Rules between the ids of tables: shoppers of one table must be shoppers of the others.

Where no id of events is one of exposures, every row is sound and every feature of behaviour is empty. Not all
need to meet: new shoppers have no events, most shoppers get no mail. Almost none meeting is a fault of the ids.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from expectations.contracts.schema import Table
from expectations.suites.referential_rules import references
from expectations.suites.rules import Rule, Settings, distinct_ids, own, rule, showing
from expectations.suites.spelling import Ids

COVERS = f"{own('relation')} = 'covers'"


@dataclass(frozen=True)
class Overlap:
    """A column whose ids must be met among those of other tables together.

    Attributes:
        column: of the table itself.
        tables: whose ids are compared; those that are present.
        key: their column.
        where: SQL, the rows of the table itself that count.
    """

    column: str
    tables: tuple[str, ...]
    key: str
    where: str = "true"


OVERLAPS: Mapping[str, tuple[Overlap, ...]] = {
    "events": (Overlap("user_id", ("users",), "user_id"),),
    "exposures": (Overlap("user_id", ("users",), "user_id"), Overlap("user_id", ("events",), "user_id")),
    # few shoppers write: they need not be among the few that were shown something
    "feedback": (Overlap("user_id", ("users", "events", "exposures"), "user_id"),),
    "relations": (Overlap("target_id", ("items",), "item_id", COVERS),),
}
"""Other columns of items' ids must be found row by row: see `referential_rules`."""


def overlaps(contract: Table, present: Collection[str]) -> tuple[Overlap, ...]:
    """What the table's ids are compared with among the tables that are present."""
    asked = OVERLAPS.get(contract.name, ())
    found = [(one, tuple(table for table in one.tables if table in present)) for one in asked]
    return tuple(Overlap(one.column, tables, one.key, one.where) for one, tables in found if tables)


def compared_tables(contract: Table, present: Collection[str]) -> tuple[str, ...]:
    """The tables whose checked rows a table's rules read."""
    referred = [reference.table for reference in references(contract, present)]
    compared = [table for overlap in overlaps(contract, present) for table in overlap.tables]
    return tuple(sorted({*referred, *compared}))


def overlap_rules(contract: Table, present: Collection[str], settings: Settings) -> tuple[Rule, ...]:
    """One rule for each comparison of ids."""
    return tuple(_rule(contract, overlap, settings) for overlap in overlaps(contract, present))


def _rule(contract: Table, overlap: Overlap, settings: Settings) -> Rule:
    others = " and ".join(overlap.tables)
    ours = distinct_ids("landed", overlap.column, overlap.where)
    theirs = " UNION ".join(distinct_ids(f"checked_{table}", overlap.key) for table in overlap.tables)
    measure = (
        f"WITH ours AS MATERIALIZED ({ours}), theirs AS MATERIALIZED ({theirs}), "  # noqa: S608
        "counted AS (SELECT least((SELECT count(*) FROM ours), (SELECT count(*) FROM theirs)) AS fewer, "
        "(SELECT count(*) FROM ours SEMI JOIN theirs USING (id)) AS both_have) "
        f"SELECT CASE WHEN fewer < {settings.min_users} THEN 1 ELSE both_have / fewer END FROM counted"
    )
    known = f"{own(overlap.column)} IN (SELECT id FROM ({theirs}))"  # noqa: S608
    return rule(
        contract,
        f"{overlap.column}_met_in_{'_'.join(overlap.tables)}",
        f"at least {settings.min_overlap:.0%} of the ids in {overlap.column} or in {others}, whichever are fewer, "
        "are in both",
        f"Name the same {'shoppers' if overlap.key == 'user_id' else 'items'} by the same ids in "
        f"{contract.name} and {others}, or map another column in [tables.{contract.name}].",
        column=overlap.column,
        measure=measure,
        arguments={"min_value": settings.min_overlap},
        breaks=f"{overlap.where} AND {own(overlap.column)} IS NOT NULL AND NOT {known}",
        shows=showing(overlap.column),
        ids=Ids(ours, theirs, others),
    )
