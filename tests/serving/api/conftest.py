"""The fixtures of `tests.ledgers`."""

from tests.ledgers import database, url

__all__ = ["database", "url"]
