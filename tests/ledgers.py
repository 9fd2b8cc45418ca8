"""A real PostgreSQL with an empty ledger, and rows to append."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from expectations.contracts.ledger import ledger_contracts
from expectations.contracts.shop_tables import CONTRACTS
from expectations.storage.masking import Mask
from orchestration.home import Home
from orchestration.local.postgres import PostgresSettings, database_url, running
from orchestration.local.processes import free_port
from serving.ledger.ledger import open_ledger

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
MASK = Mask(key="a key")


@pytest.fixture(scope="session")
def url(tmp_path_factory):
    """The URL of the ledger's database, whose role owns it and nothing else."""
    home, settings = Home(root=tmp_path_factory.mktemp("ledger")), PostgresSettings(port=free_port())
    with running(home, settings) as databases:
        yield database_url(databases["ledger"])


@pytest.fixture
def database(url):
    """An engine of the same database, without a ledger in it yet."""
    return emptied(url)


def emptied(url):
    """An engine of a database, after its ledger was dropped."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA IF EXISTS ledger CASCADE"))
    return engine


def contracts():
    extras = {**CONTRACTS, "exposures": CONTRACTS["exposures"].with_extras({"weather": "categorical"})}
    return ledger_contracts(extras)


@pytest.fixture
def ledger(url, database):
    with open_ledger(url, contracts(), mask=MASK, clock=lambda: NOW) as opened:
        yield opened


def stored(database, table):
    """The rows of a table in the order of their numbers."""
    with database.connect() as connection:
        found = connection.execute(sa.text(f"SELECT * FROM ledger.{table} ORDER BY seq"))  # noqa: S608
        return [dict(row) for row in found.mappings()]


def event(event_id="e1", **columns):
    return {
        "event_id": event_id,
        "user_id": "u1",
        "event_type": "view",
        "event_timestamp": "2026-11-29T10:00:00Z",
        **columns,
    }


def exposure(exposure_id="x1", **columns):
    return {
        "exposure_id": exposure_id,
        "user_id": "u1",
        "item_id": "c1",
        "scenario": "campaign",
        "event_timestamp": "2026-11-29T10:00:00Z",
        **columns,
    }


def statuses(results):
    return [result.status for result in results]
