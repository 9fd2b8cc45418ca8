"""The ledger's tables in PostgreSQL, made from the contracts: a column added to one is added to the table.

<table>      one row per row of a contract, see `expectations.contracts.ledger`; never updated, which a trigger
             refuses, and deleted only by an erasure or after the time of retention
quarantine   one row per row that was not appended: because it breaks its contract ("invalid"), or because its id
             was recorded before with other content ("conflict"); and how often it came
erased       keyed hashes of the shoppers who were erased: no row of theirs is appended again
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from expectations.contracts.ledger import (
    DOCUMENTS,
    EXTRA,
    LEDGER_TABLES,
    POSTGRES_TYPES,
    RECORDED_AT,
    SCHEMA,
    SEQUENCE,
)
from expectations.contracts.schema import Table

_LOCK = 5_270_114_639
"""Names the lock under which the tables are made."""

_SQL_TYPES: dict[str, type[sa.types.TypeEngine]] = {
    "text": sa.Text,
    "jsonb": JSONB,
    "timestamp": sa.DateTime,
    "bigint": sa.BigInteger,
    "double precision": sa.Double,
    "boolean": sa.Boolean,
}
_INDEXED = ("user_id", "exposure_id")
"""What an erasure and the join of outcomes look for."""

_metadata = sa.MetaData(schema=SCHEMA)


def _recorded_at() -> sa.Column:
    return sa.Column(RECORDED_AT, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def _table(contract: Table) -> sa.Table:
    (key,) = contract.key
    columns = [
        sa.Column(
            column.name,
            _SQL_TYPES[POSTGRES_TYPES[column.type]](),
            primary_key=column.name == key,
            nullable=not column.required,
            index=column.name in _INDEXED and column.name != key,
        )
        for column in contract.columns
    ]
    documents = [sa.Column(name, JSONB) for name in (*DOCUMENTS.get(contract.name, ()), EXTRA)]
    number = sa.Column(SEQUENCE, sa.BigInteger, sa.Identity(always=True), nullable=False, unique=True)
    return sa.Table(contract.name, _metadata, number, *columns, *documents, _recorded_at())


TABLES: dict[str, sa.Table] = {name: _table(contract) for name, contract in LEDGER_TABLES.items()}

QUARANTINE = sa.Table(
    "quarantine",
    _metadata,
    sa.Column(SEQUENCE, sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("row", sa.Text, nullable=False),  # JSON; not JSONB, which refuses the NUL of a broken row
    sa.Column("content", sa.Text, nullable=False),  # SHA-256 of table, status and row
    sa.Column("user_id", sa.Text, index=True),
    sa.Column("exposure_id", sa.Text),
    sa.Column("times", sa.BigInteger, nullable=False, server_default="1"),
    _recorded_at(),
    sa.UniqueConstraint("content"),
)
ERASED = sa.Table(
    "erased",
    _metadata,
    sa.Column("user_hash", sa.Text, primary_key=True),
    sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)

_REFUSE_UPDATE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.refuse_update() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append-only: % is never updated', TG_TABLE_NAME; END $$
"""
_TRIGGER = "append_only"


def create_tables(connection: sa.Connection) -> None:
    """Create what is not there yet, in the transaction of a connection; where all is there, nobody waits for it."""
    # two processes may come here at the same time
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if not sa.inspect(connection).has_schema(SCHEMA):
        connection.execute(sa.schema.CreateSchema(SCHEMA))
        connection.execute(sa.text(_REFUSE_UPDATE))
    _metadata.create_all(connection)
    inspector, compiler = sa.inspect(connection), connection.dialect.type_compiler_instance
    for name, table in TABLES.items():
        there = {column["name"] for column in inspector.get_columns(name, schema=SCHEMA)}
        for column in (column for column in table.columns if column.name not in there):
            kind = compiler.process(column.type)
            connection.execute(sa.text(f'ALTER TABLE {SCHEMA}.{name} ADD COLUMN "{column.name}" {kind}'))
    for name in TABLES.keys() - _guarded(connection):
        guard = f"CREATE TRIGGER {_TRIGGER} BEFORE UPDATE ON {SCHEMA}.{name} FOR EACH ROW EXECUTE FUNCTION"
        connection.execute(sa.text(f"{guard} {SCHEMA}.refuse_update()"))


def _guarded(connection: sa.Connection) -> set[str]:
    """The tables that refuse updates."""
    query = sa.text(
        "SELECT relname FROM pg_trigger JOIN pg_class ON tgrelid = pg_class.oid "
        "WHERE tgname = :trigger AND relnamespace = CAST(:schema AS regnamespace)"
    )
    return set(connection.scalars(query, {"trigger": _TRIGGER, "schema": SCHEMA}))
