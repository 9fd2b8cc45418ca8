"""The alerts and who has them, in PostgreSQL: what is written down here reaches each channel, whatever ends meanwhile.

    runs        one row per run that was read: it is read once
    failures    one row per time that something failed until it passed again: how often, when told
    alerts      one row per thing to tell: a failure, a reminder of one that goes on, a recovery
    deliveries  one row per alert and channel: when it was delivered
    channels    one row per channel: failed attempts in a row, when the next one is due, why the last one failed

A channel is sent its alerts in their order, and each once, but for one case: where the process is killed, or the
database ends, after the channel took a message and before that was committed, the message is sent again.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from expectations.errors import TransientError
from orchestration.alerting.alert import Alert, Failure, RunOutcome, Severity
from orchestration.alerting.channels import MAX_ALERTS, Service, send

SCHEMA = "alerting"
_LOCK = 5_270_114_638
"""Names the lock under which the tables are made."""

_DAY = timedelta(days=1)
_metadata = sa.MetaData(schema=SCHEMA)
_time = sa.DateTime(timezone=True)

_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("read_at", _time, nullable=False),
)
_failures = sa.Table(
    "failures",
    _metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("alert", sa.JSON, nullable=False),  # not JSONB, which refuses the NUL of a broken row
    sa.Column("count", sa.Integer, nullable=False, default=1),
    sa.Column("opened_at", _time, nullable=False),
    sa.Column("told_at", _time, nullable=False),
    sa.Column("closed_at", _time),
)
_open = _failures.c.closed_at.is_(None)
sa.Index("one_open_failure", _failures.c.fingerprint, unique=True, postgresql_where=_open)
_alerts = sa.Table(
    "alerts",
    _metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("failure_id", sa.ForeignKey(_failures.c.id), nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("alert", sa.JSON, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    sa.UniqueConstraint("failure_id", "run_id"),
)
_channels = sa.Table(
    "channels",
    _metadata,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("next_attempt_at", _time, nullable=False),
    sa.Column("last_error", sa.Text, nullable=False, default=""),
)
_deliveries = sa.Table(
    "deliveries",
    _metadata,
    sa.Column("alert_id", sa.ForeignKey(_alerts.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("channel", sa.ForeignKey(_channels.c.channel), primary_key=True),
    sa.Column("delivered_at", _time),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Undelivered:
    """What a channel does not have.

    Attributes:
        channel: its name.
        pending, given_up: alerts that are tried again; alerts that were tried for too long.
        last_error, next_attempt_at: why the last attempt failed, empty if it did not; when the next one is due.
    """

    channel: str
    pending: int
    given_up: int
    last_error: str
    next_attempt_at: datetime

    def text(self) -> str:
        """It in one line, without secrets."""
        counts = [f"{self.pending} undelivered", f"{self.given_up} given up" if self.given_up else ""]
        next_attempt = f"next attempt {self.next_attempt_at:%H:%M:%S} UTC" if self.pending else ""
        facts = filter(None, [*counts, self.last_error, next_attempt])
        return f"{self.channel}: {', '.join(facts)}"


@dataclass(frozen=True, kw_only=True)
class Outbox:
    """The outbox in a schema of its own of one database.

    Every method raises TransientError where the database does not do what is asked; says why, without the password.

    Attributes:
        url: the database's SQLAlchemy URL; has a password.
        clock: tells the time, in UTC.
        first_wait, longest_wait: from a channel's failed attempt to the next one; it doubles from the one to the other.
        give_up: age at which an alert is not tried again.
        remind: how often a failure that goes on is told again, at most.
        keep: age at which alerts and closed failures are deleted.
        patience: how long one `deliver` begins attempts: Dagster lets a sensor take 60 s.
    """

    url: str = field(repr=False)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    first_wait: timedelta = timedelta(seconds=30)
    longest_wait: timedelta = timedelta(hours=1)
    give_up: timedelta = 3 * _DAY
    remind: timedelta = _DAY
    keep: timedelta = 30 * _DAY
    patience: timedelta = timedelta(seconds=30)

    def create_tables(self) -> None:
        """Create what is not there yet."""
        with self._transaction() as connection:
            # two sensors may come here at the same time
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            if not sa.inspect(connection).has_schema(SCHEMA):
                connection.execute(sa.schema.CreateSchema(SCHEMA))
            _metadata.create_all(connection)

    def unread(self, run_ids: Collection[str]) -> set[str]:
        """Those of some runs that were not recorded yet."""
        with self._transaction() as connection:
            query = sa.select(_runs.c.run_id).where(_runs.c.run_id.in_(run_ids))
            return set(run_ids) - set(connection.scalars(query))

    def record(self, outcome: RunOutcome, channels: Collection[str]) -> list[Alert]:
        """Write down how a run ended, and for each channel what is to be told of it: all of it, once, or nothing.

        A failure is told when it begins, then counted, with a reminder from time to time. When its subject passes, or
        the whole job succeeds, it is told that it recovered.

        Returns:
            What is to be told; nothing where the run was recorded before.
        """
        with self._transaction() as connection:
            now = self.clock()
            read = insert(_runs).values(run_id=outcome.run_id, read_at=now).on_conflict_do_nothing()
            if not connection.execute(read).rowcount:
                return []
            found: dict[str, Failure] = {}
            for failure in outcome.failures:
                found.setdefault(failure.fingerprint(outcome.job), failure)
            told = [self._count(connection, outcome, key, failure, now) for key, failure in found.items()]
            told += self._close(connection, outcome, found, now)
            alerts = [(failure_id, alert) for failure_id, alert in told if alert]
            self._write(connection, outcome.run_id, alerts, channels, now)
            self._delete_old(connection, now)
        for _, alert in alerts:
            log.warning("%s", alert.text().replace("\n", "; "))
        return [alert for _, alert in alerts]

    def _count(
        self, connection: sa.Connection, outcome: RunOutcome, key: str, failure: Failure, now: datetime
    ) -> tuple[int, Alert | None]:
        """Open a failure or count it once more: its id, and what is to be told, if anything."""
        content = asdict(failure.alert)
        new = insert(_failures).values(
            fingerprint=key,
            job=outcome.job,
            subject=failure.subject,
            alert=content,
            opened_at=now,
            told_at=now,
        )
        again = {"count": _failures.c.count + 1, "alert": content}
        upsert = new.on_conflict_do_update(index_elements=["fingerprint"], index_where=_open, set_=again)
        row = connection.execute(upsert.returning(*_failures.c)).one()
        if row.count == 1:
            return row.id, failure.alert
        if now - row.told_at < self.remind:
            return row.id, None
        connection.execute(sa.update(_failures).where(_failures.c.id == row.id).values(told_at=now))
        return row.id, replace(failure.alert, title=f"still: {failure.alert.title} ({_times(row)})")

    def _close(
        self, connection: sa.Connection, outcome: RunOutcome, found: Collection[str], now: datetime
    ) -> list[tuple[int, Alert]]:
        """Close what a run shows to be well again: ids, and what is to be told."""
        over = [_open, _failures.c.job == outcome.job, _failures.c.fingerprint.not_in(found)]
        if not outcome.succeeded:
            over.append(_failures.c.subject.in_(outcome.passed))
        close = sa.update(_failures).where(*over).values(closed_at=now)
        rows = connection.execute(close.returning(*_failures.c)).all()
        return [
            (
                row.id,
                Alert(
                    title=f"recovered: {row.alert['title']} ({_times(row)})",
                    table=row.alert["table"],
                    rule=row.alert["rule"],
                    link=outcome.link,
                    severity=Severity.INFO,
                ),
            )
            for row in sorted(rows, key=lambda row: row.id)
        ]

    def _write(
        self,
        connection: sa.Connection,
        run_id: str,
        alerts: Collection[tuple[int, Alert]],
        channels: Collection[str],
        now: datetime,
    ) -> None:
        for channel in channels:
            new = insert(_channels).values(channel=channel, next_attempt_at=now)
            connection.execute(new.on_conflict_do_nothing())
        for failure_id, alert in alerts:
            new = insert(_alerts).values(
                failure_id=failure_id, run_id=run_id, alert=asdict(alert), created_at=now
            )
            alert_id = connection.scalar(new.returning(_alerts.c.id))
            for channel in channels:
                connection.execute(insert(_deliveries).values(alert_id=alert_id, channel=channel))

    def _delete_old(self, connection: sa.Connection, now: datetime) -> None:
        for column in (_alerts.c.created_at, _failures.c.closed_at, _runs.c.read_at):
            connection.execute(sa.delete(column.table).where(column < now - self.keep))

    def deliver(self, services: Mapping[str, Service]) -> dict[str, str]:
        """Send each channel whose turn it is the first of what it does not have, in one message.

        After a failed attempt the channel waits, and takes fewer alerts, so that none that it refuses holds up many.

        Args:
            services: the channels, of `channels.read_services`.

        Returns:
            channel -> why it did not take them.
        """
        begin, failed = self.clock(), {}
        with self._transaction() as connection:
            waiting = self._pending(begin).with_only_columns(_deliveries.c.channel)
            removed = sa.update(_channels).where(
                _channels.c.channel.in_(waiting), _channels.c.channel.not_in(services)
            )
            connection.execute(removed.values(last_error="its setting is gone"))
            due = sa.select(_channels.c.channel).where(
                _channels.c.channel.in_(waiting), _channels.c.channel.in_(services), self._is_due(begin)
            )
            channels = connection.scalars(due.order_by(_channels.c.next_attempt_at)).all()
        for channel in channels:
            if self.clock() - begin > self.patience:
                break
            if reason := self._attempt(channel, services[channel]):
                failed[channel] = reason
        return failed

    def _attempt(self, channel: str, service: Service) -> str:
        """Send one channel a message; why it did not take it, empty where it did or another process is at it."""
        with self._transaction() as connection:
            now = self.clock()
            mine = sa.select(_channels).where(_channels.c.channel == channel, self._is_due(now))
            row = connection.execute(mine.with_for_update(skip_locked=True, key_share=True)).one_or_none()
            if row is None:
                return ""
            # the message is sent inside of the transaction, so that a process that is killed leaves no trace of it
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            pending = self._pending(now).where(_deliveries.c.channel == channel).order_by(_alerts.c.id)
            batch = connection.execute(pending.limit(max(1, MAX_ALERTS >> row.attempts))).all()
            if not batch:
                return ""
            reason = ""
            try:
                send([_alert(row.alert) for row in batch], channel, service)
            except TransientError as error:
                reason = str(error)
            attempts, now = (row.attempts + 1 if reason else 0), self.clock()
            state = sa.update(_channels).where(_channels.c.channel == channel)
            next_attempt = now + self._wait(attempts)
            connection.execute(
                state.values(attempts=attempts, next_attempt_at=next_attempt, last_error=reason)
            )
            if not reason:
                sent = sa.update(_deliveries).where(
                    _deliveries.c.channel == channel, _deliveries.c.alert_id.in_([row.id for row in batch])
                )
                connection.execute(sent.values(delivered_at=now))
            return reason

    def _wait(self, attempts: int) -> timedelta:
        if not attempts:
            return timedelta()
        return min(self.first_wait * 2 ** min(attempts - 1, 20), self.longest_wait)

    @staticmethod
    def _is_due(now: datetime) -> sa.ColumnElement[bool]:
        return _channels.c.next_attempt_at <= now

    def _pending(self, now: datetime) -> "sa.Select[Any]":
        """The alerts that some channel is still to be sent."""
        pending = sa.select(_alerts.c.id, _alerts.c.alert).join(_deliveries)
        return pending.where(_deliveries.c.delivered_at.is_(None), _alerts.c.created_at > now - self.give_up)

    def undelivered(self) -> list[Undelivered]:
        """The channels that lack alerts of the time that alerts are kept."""
        young = _alerts.c.created_at > self.clock() - self.give_up
        query = (
            sa.select(
                _channels.c.channel,
                sa.func.count().filter(young).label("pending"),
                sa.func.count().filter(~young).label("given_up"),
                _channels.c.last_error,
                _channels.c.next_attempt_at,
            )
            .select_from(_deliveries.join(_alerts).join(_channels))
            .where(_deliveries.c.delivered_at.is_(None))
            .group_by(_channels.c.channel)
            .order_by(_channels.c.channel)
        )
        with self._transaction() as connection:
            return [Undelivered(**row) for row in connection.execute(query).mappings()]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        engine = sa.create_engine(
            self.url, poolclass=sa.NullPool, hide_parameters=True, connect_args={"connect_timeout": 10}
        )
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise TransientError(f"the database of alerts failed: {str(error.orig).strip()}") from error


def _alert(content: Mapping[str, Any]) -> Alert:
    return Alert(**{**content, "severity": Severity(content["severity"])})


def _times(row: "sa.Row[Any]") -> str:
    times = "once" if row.count == 1 else f"{row.count} times"
    return f"failed {times} since {row.opened_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
