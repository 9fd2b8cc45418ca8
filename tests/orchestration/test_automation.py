"""The services of `make up`, on a shop whose data are broken: the schedule ticks, the run stops, alerts are sent."""

import os

import httpx
import pytest

from orchestration.local.processes import free_port, wait_until
from orchestration.local.stack import Stack, api_service, dagster_services
from tests.orchestration.conftest import letter_text, write_broken_shop

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 240


@pytest.fixture
def source(tmp_path):
    return write_broken_shop(tmp_path)


def _runs(port):
    query = "{ runsOrError(limit: 5) { ... on Runs { results { jobName status tags { key value } } } } }"
    reply = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=10, trust_env=False)
    return reply.json()["data"]["runsOrError"]["results"]


def test_a_scheduled_run_on_broken_data_sends_alerts(home, postgres, source, webhook, mail):
    ui, api = free_port(), free_port()
    environ = {
        **os.environ,
        "RECOMMENDER_INGESTION_CRON": "* * * * *",
        "RECOMMENDER_SLACK_WEBHOOK": webhook.url,
        "RECOMMENDER_SMTP_HOST": "127.0.0.1",
        "RECOMMENDER_SMTP_PORT": str(mail.port),
        "RECOMMENDER_SMTP_FROM": "bot@shop.example",
        "RECOMMENDER_SMTP_TO": "data@shop.example",
    }
    stack = Stack(home=home, postgres=postgres, services=[*dagster_services(ui), api_service(api)])
    stack.up(source, environ, print)
    try:
        assert httpx.get(f"http://127.0.0.1:{api}/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{api}/readyz", trust_env=False).status_code == 503
        assert wait_until(lambda: webhook.received and mail.letters, PATIENCE_SECONDS)
        run = _runs(ui)[-1]
        assert run["jobName"] == "data"
        assert run["status"] == "FAILURE"
        assert {"key": "dagster/schedule_name", "value": "daily_ingestion"} in run["tags"]
    finally:
        stack.down(print)
    said = webhook.received[0]["text"]
    letter = letter_text(mail.letters[0])
    for text in (said, letter):
        assert "exposures.item_id_known" in text
        assert "c99" in text
        assert f"http://127.0.0.1:{ui}/runs/" in text
    assert "table: exposures" in said
