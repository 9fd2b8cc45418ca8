"""The fixtures of `tests.ledgers`."""

from tests.ledgers import database, ledger, url

__all__ = ["database", "ledger", "url"]
