"""Appending to the ledger, deciding upon it, and what an erasure or the end of retention takes out of it.

A batch of rows is one transaction: when `append` returns, all that it reports as appended is committed. Where it
raises, the caller sends the same rows again: each is appended once, whatever became of the first attempt.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from expectations.contracts.ledger import RECORDED_AT, SCHEMA
from expectations.contracts.schema import Table
from expectations.errors import RequestError, TransientError
from expectations.storage.masking import Mask
from expectations.suites.engine import open_duckdb
from serving.ledger.appending import RowResult, append_rows, keep_refused, refusal
from serving.ledger.deciding import DecidedBefore, DecisionTransaction, decided_before, lock_shopper
from serving.ledger.tables import ERASED, QUARANTINE, TABLES, create_tables
from serving.ledger.validation import Checked, Validator

CLOCK_SKEW = timedelta(minutes=5)
"""So far ahead of ours the clock of who sends a row may be, before what it tells lies in the future."""

_ERASURE_LOCK = 5_270_114_640
"""Shared by who appends, held alone by who erases: nobody appends a row of a shopper between check and removal."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """One table's rows: how many it has, and how many were refused (the same row again and again counts each time)."""

    rows: int
    conflicts: int
    invalid: int


class Ledger:
    """The ledger of one home, of use to several threads at once.

    Every method raises TransientError where the database does not do what is asked; says why, without the password.
    """

    def __init__(
        self, engine: sa.Engine, validator: Validator, mask: Mask, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._validator = validator
        self._mask = mask
        self._clock = clock

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[RowResult]:
        """Append rows to one table, in one transaction; each row is judged by itself.

        Args:
            table: events, exposures, outcomes, feedback, decisions or items.
            rows: column -> value, as JSON has them; times ISO 8601, in UTC where they name no zone.

        Returns:
            What became of each row, in their order.

        Raises:
            RequestError: there is no such table.
        """
        if table not in TABLES:
            raise RequestError(f"the ledger has no table {table!r}; it has {', '.join(TABLES)}")
        checked = self._check(table, rows)
        (key,) = TABLES[table].primary_key.columns.keys()
        with self._transaction() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_ERASURE_LOCK)))
            gone = self._erased_among(connection, checked)
            results: list[RowResult | None] = [
                _gone(one, key) if one.values.get("user_id") in gone else refusal(one, key) for one in checked
            ]
            sound = {number: checked[number].values for number, known in enumerate(results) if known is None}
            told = append_rows(connection, table, sound)
            complete = [known or told[number] for number, known in enumerate(results)]
            keep_refused(connection, table, rows, checked, complete)
            if table == "exposures" and gone:  # an outcome that came before does not say whose it is
                orphans = [result.id for result in complete if result.status == "erased" and result.id]
                outcomes = TABLES["outcomes"]
                connection.execute(sa.delete(outcomes).where(outcomes.c.exposure_id.in_(orphans)))
        return complete

    @contextlib.contextmanager
    def deciding(self, user_id: str) -> Iterator[DecisionTransaction]:
        """A transaction in which a shopper's request is decided, while no other one of the same shopper is.

        What it appends is committed when the block ends without an error; else nothing is, and nothing is kept in
        quarantine. Keep the block short: it holds a connection.
        """
        with self._transaction() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_ERASURE_LOCK)))
            lock_shopper(connection, user_id)
            erased = ERASED.c.user_hash == self._mask.user_hash(user_id)
            gone = bool(connection.scalar(sa.select(sa.exists().where(erased))))
            yield DecisionTransaction(connection, self._check, erased=gone)

    def decided(self, decision_id: str) -> DecidedBefore | None:
        """What was decided before under an id."""
        with self._transaction() as connection:
            return decided_before(connection, decision_id)

    def _check(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[Checked]:
        latest = self._clock().astimezone(UTC).replace(tzinfo=None) + CLOCK_SKEW
        return self._validator.check(table, rows, latest)

    def _erased_among(self, connection: sa.Connection, checked: Sequence[Checked]) -> set[str]:
        users = {one.values["user_id"] for one in checked if "user_id" in one.values}
        if not users or not connection.scalar(sa.select(sa.exists().select_from(ERASED))):
            return set()
        hashes = {self._mask.user_hash(user): user for user in users}
        found = connection.scalars(sa.select(ERASED.c.user_hash).where(ERASED.c.user_hash.in_(hashes)))
        return {hashes[one] for one in found}

    def counts(self) -> dict[str, Counts]:
        """How many rows each table has and refused, for metrics; it reads every table's index."""
        refused = sa.select(QUARANTINE.c.table_name, QUARANTINE.c.status, sa.func.sum(QUARANTINE.c.times))
        with self._transaction() as connection:
            query = refused.group_by(QUARANTINE.c.table_name, QUARANTINE.c.status)
            times = {(name, status): int(total) for name, status, total in connection.execute(query)}
            return {
                name: Counts(
                    rows=int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0),
                    conflicts=times.get((name, "conflict"), 0),
                    invalid=times.get((name, "invalid"), 0),
                )
                for name, table in TABLES.items()
            }

    def erase(self, user_id: str, exposure_ids: Sequence[str] = ()) -> dict[str, int]:
        """Remove a shopper from every table and let nobody append a row of theirs again.

        Args:
            user_id: the shopper.
            exposure_ids: exposures of theirs that the ledger may not have, whose outcomes it may.

        Returns:
            Table -> rows removed; `quarantine` is among them.
        """
        with self._transaction() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ERASURE_LOCK)))
            tombstone = insert(ERASED).values(user_hash=self._mask.user_hash(user_id))
            connection.execute(tombstone.on_conflict_do_nothing())
            exposures, outcomes = TABLES["exposures"], TABLES["outcomes"]
            shown = sa.select(exposures.c.exposure_id).where(exposures.c.user_id == user_id)
            own = [*exposure_ids, *connection.scalars(shown)]
            theirs = {
                name: table.c.user_id == user_id for name, table in TABLES.items() if "user_id" in table.c
            }
            theirs["outcomes"] |= outcomes.c.exposure_id == sa.any_(
                sa.bindparam("own", own, sa.ARRAY(sa.Text))
            )
            kept = QUARANTINE.c.exposure_id == sa.any_(sa.bindparam("own", own, sa.ARRAY(sa.Text)))
            theirs["quarantine"] = (QUARANTINE.c.user_id == user_id) | kept
            every = {**TABLES, "quarantine": QUARANTINE}
            return {
                name: connection.execute(sa.delete(every[name]).where(which)).rowcount
                for name, which in theirs.items()
            }

    def forget_before(self, time: datetime) -> dict[str, int]:
        """Remove what was recorded before a time, and say how many rows of each table; items stay."""
        aged = {name: table for name, table in TABLES.items() if name != "items"}
        with self._transaction() as connection:
            return {
                name: connection.execute(sa.delete(table).where(table.c[RECORDED_AT] < time)).rowcount
                for name, table in {**aged, "quarantine": QUARANTINE}.items()
            }

    def vacuum(self) -> None:
        """Let the database use again the space of rows that were removed."""
        with self._errors(), self._engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            for name in (*TABLES, QUARANTINE.name):
                alone.execute(sa.text(f"VACUUM {SCHEMA}.{name}"))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @staticmethod
    @contextlib.contextmanager
    def _errors() -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            what = str(error.orig).strip().partition("\n")[0]
            raise TransientError(f"the ledger's database failed: {what}; send the same rows again") from None


@contextlib.contextmanager
def open_ledger(
    url: str,
    contracts: Mapping[str, Table],
    *,
    mask: Mask,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    connections: int = 5,
) -> Iterator[Ledger]:
    """The ledger in a database, with tables that are made where they are missing.

    Args:
        url: the database's SQLAlchemy URL; has a password.
        contracts: `expectations.contracts.ledger.ledger_contracts` of the source.
        mask: has the key of the hashes that stand for the erased.
        clock: tells the time, in UTC.
        connections: how many are kept.

    Raises:
        TransientError: the database does not answer.
    """
    engine = sa.create_engine(
        url,
        pool_size=connections,
        pool_pre_ping=True,  # the database may have been started anew
        hide_parameters=True,
        connect_args={"connect_timeout": 10},
    )
    with open_duckdb(None) as rules:
        ledger = Ledger(engine, Validator(contracts, rules), mask, clock)
        try:
            with ledger._transaction() as connection:
                create_tables(connection)
            yield ledger
        finally:
            engine.dispose()


def _gone(checked: Checked, key: str) -> RowResult:
    return RowResult(id=checked.values.get(key), status="erased", reason="user_id: this shopper was erased")
