"""Deciding upon the ledger: what was decided before, what a shopper saw, and the rows of a decision, all or none.

One shopper's decisions follow each other, whichever worker makes them: each waits for the lock of the shopper before it
reads. So a cap is not run over by two requests at once, and the second request of one id finds what the first decided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from expectations.errors import ImplementationError, RequestError
from serving.ledger.appending import append_rows
from serving.ledger.tables import TABLES
from serving.ledger.validation import Checked

_SHOPPER_LOCK = 527_011_464
"""With a hash of the shopper it names the lock; two numbers name other locks than one does."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which exposures count.

    Attributes:
        since: naive UTC, exclusive.
        scenarios: theirs; empty: any.
    """

    since: datetime
    scenarios: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class DecidedBefore:
    """A decision as it was recorded: the request, and the reply that was given."""

    asked: Any
    reply: Any


def lock_shopper(connection: sa.Connection, user_id: str) -> None:
    """Wait until nobody else decides for this shopper; until the transaction ends, nobody else does."""
    key = sa.func.hashtext(user_id)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SHOPPER_LOCK, key)))


def decided_before(connection: sa.Connection, decision_id: str) -> DecidedBefore | None:
    """What was recorded under an id; None where nothing was."""
    decisions = TABLES["decisions"]
    query = sa.select(decisions.c.asked, decisions.c.reply).where(decisions.c.decision_id == decision_id)
    found = connection.execute(query).one_or_none()
    return DecidedBefore(asked=found.asked, reply=found.reply) if found else None


class DecisionTransaction:
    """What a decision reads and appends; made by `Ledger.deciding`.

    Args:
        connection: in a transaction that holds the shopper's lock.
        check: checks rows of a table against its contract.
        erased: whether the shopper was erased, so that no row of theirs may be appended.
    """

    def __init__(
        self,
        connection: sa.Connection,
        check: Callable[[str, Sequence[Mapping[str, Any]]], list[Checked]],
        *,
        erased: bool,
    ) -> None:
        self._connection, self._check, self._erased = connection, check, erased

    def decided(self, decision_id: str) -> DecidedBefore | None:
        """What was decided before under an id."""
        return decided_before(self._connection, decision_id)

    def exposure_counts(
        self, user_id: str, windows: Sequence[Window], until: datetime
    ) -> dict[str, tuple[int, ...]]:
        """How often a shopper was shown each item, in one query.

        Args:
            user_id: the shopper.
            windows: C of them.
            until: naive UTC, inclusive: the end of every window.

        Returns:
            item_id -> (C,) exposures in each window; an aggregate counts its impressions.
        """
        if not windows:
            return {}
        shown = TABLES["exposures"].c
        times = sa.func.coalesce(shown.impressions, 1)
        counts = []
        for number, window in enumerate(windows):
            within = shown.event_timestamp > window.since
            if window.scenarios:
                within &= shown.scenario.in_(window.scenarios)
            counts.append(sa.func.coalesce(sa.func.sum(times).filter(within), 0).label(f"count_{number}"))
        query = (
            sa.select(shown.item_id, *counts)
            .where(shown.user_id == user_id)
            .where(shown.event_timestamp > min(window.since for window in windows))
            .where(shown.event_timestamp <= until)
            .group_by(shown.item_id)
        )
        return {item: tuple(map(int, found)) for item, *found in self._connection.execute(query)}

    def append(self, decision: Mapping[str, Any], exposures: Sequence[Mapping[str, Any]]) -> None:
        """Append a decision and what it shows.

        Raises:
            RequestError: the shopper was erased, or a row breaks its contract, such as a time in the future.
            ImplementationError: an id was recorded before.
        """
        if self._erased:
            raise RequestError("user_id: this shopper was erased, so no decision of theirs can be kept")
        for table, rows in (("decisions", [decision]), ("exposures", exposures)):
            checked = self._check(table, rows) if rows else []
            for one in checked:
                if one.reason:
                    raise RequestError(f"the decision cannot be kept in {table}: {one.reason}")
            results = append_rows(
                self._connection, table, {number: one.values for number, one in enumerate(checked)}
            )
            for result in results.values():
                if result.status != "appended":
                    raise ImplementationError(f"{result.id} is in {table} already; decide by its request_id")
