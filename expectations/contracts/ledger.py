"""The ledger's contract: which tables the account of what happened has, and what their rows hold.

The service appends to it (`serving.ledger`), ingestion reads it (`features.sources.ledger`). It lies in a database of
its own, in the schema `ledger`. Columns are those of the shop's contracts; what a source declares beyond them is in
one JSONB column. The ledger adds a growing number and the time of recording to each row:

    seq           grows with each row. Transactions commit in another order: a reader that goes on from the highest
                  number it saw would skip rows, so ingestion reads one snapshot of all rows
    …             the contract's columns
    extra         JSONB, the source's extra columns
    recorded_at   the server's time
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from expectations.contracts.schema import Column, ColumnType, Table
from expectations.contracts.shop_tables import EVENTS, EXPOSURES, FEEDBACK, ITEMS

URL_VARIABLE = "RECOMMENDER_LEDGER_URL"
"""The environment variable that holds the SQLAlchemy URL of the ledger's database; it has a password."""

SCHEMA = "ledger"
SEQUENCE, EXTRA, RECORDED_AT = "seq", "extra", "recorded_at"

_required = partial(Column, required=True)

OUTCOMES = Table(
    name="outcomes",
    grain="one row per outcome of an exposure, whether that was recorded before or is yet to come",
    key=("outcome_id",),
    event_time="outcome_timestamp",
    columns=(
        _required(
            "outcome_id", "string", "the outcome; where an exposure can have but one, the exposure's id"
        ),
        EXPOSURES.column("exposure_id"),
        EXPOSURES.column("user_id"),
        replace(EXPOSURES.column("outcome"), required=True),
        EXPOSURES.column("outcome_value"),
        EXPOSURES.column("outcome_timestamp"),
    ),
)

DECISIONS = Table(
    name="decisions",
    grain="one row per decision: what could be shown, and how likely each was",
    key=("decision_id",),
    event_time="event_timestamp",
    columns=(
        _required("decision_id", "string", "the decision"),
        EXPOSURES.column("request_id"),
        EXPOSURES.column("user_id"),
        EXPOSURES.column("scenario"),
        EXPOSURES.column("event_timestamp"),
        Column("bundle", "string", "hash of the model that decided"),
    ),
)

LEDGER_TABLES: Mapping[str, Table] = MappingProxyType(
    {table.name: table for table in (EVENTS, EXPOSURES, OUTCOMES, FEEDBACK, DECISIONS, ITEMS)}
)

DOCUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"decisions": ("candidates", "propensities", "asked", "reply")}
)
"""Columns beside the contract's whose values are JSON of any shape, kept as they are given. Of a decision: the items
that could be shown with their scores; the distribution and the propensities of those shown; the request; the reply."""

READ_BY_INGESTION = ("items", "events", "exposures", "feedback")
"""The tables that a `source.toml` may read from the ledger; outcomes come with the exposures."""

POSTGRES_TYPES: Mapping[ColumnType, str] = MappingProxyType(
    {
        "string": "text",
        "strings": "jsonb",
        "timestamp": "timestamp",
        "integer": "bigint",
        "number": "double precision",
        "boolean": "boolean",
    }
)


def ledger_contracts(shop: Mapping[str, Table]) -> Mapping[str, Table]:
    """The ledger's contracts for a source: with its extra columns and bounds (`Source.contracts`)."""
    return MappingProxyType({name: shop.get(name, table) for name, table in LEDGER_TABLES.items()})
