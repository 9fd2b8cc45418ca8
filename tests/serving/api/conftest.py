"""The service in this process, over ASGI, and the fixtures of `tests.ledgers`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from starlette.testclient import TestClient

from expectations.contracts.ledger import URL_VARIABLE
from serving.api.service import Recommender
from tests.ledgers import database, url

__all__ = ["database", "url"]

HERE = "http://127.0.0.1:3001"
CONTEXT = {"channel": "mail", "weather": "rain", "basket_value": 12.5}


@contextlib.contextmanager
def served(home: Path, ledger_url: str) -> Iterator[TestClient]:
    """What a home deploys, with a ledger; one after the other in a process, whose metrics BentoML registers once."""
    settings = {"RECOMMENDER_HOME": str(home), URL_VARIABLE: ledger_url}
    os.environ.update(settings)
    try:
        with TestClient(Recommender.to_asgi(), base_url=HERE, raise_server_exceptions=False) as client:
            yield client
    finally:
        for name in settings:
            del os.environ[name]
        from prometheus_client import REGISTRY  # BentoML imports it, after it said where workers meet

        for collector, names in list(REGISTRY._collector_to_names.items()):
            if any(name.startswith("bentoml_") for name in names):
                REGISTRY.unregister(collector)
