"""The services of `make up`, on a shop whose data are broken: the schedule ticks, the run stops, alerts are sent.

Each process has in its environment what it needs, as the kernel says, and no secret of another.
"""

import os

import httpx
import psutil
import pytest

from orchestration.local.processes import free_port, wait_until
from orchestration.local.stack import POSTGRES, Stack, api_service, dagster_services
from tests.orchestration.conftest import letter_text, write_broken_shop

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 240


@pytest.fixture
def source(tmp_path):
    path = write_broken_shop(tmp_path)
    path.write_text(path.read_text() + '[database]\nurl_env = "SHOP_DATABASE_URL"\n')
    return path


SECRETS = {
    "RECOMMENDER_SMTP_PASSWORD": "mail",
    "RECOMMENDER_SLACK_WEBHOOK": "webhook",
    "RECOMMENDER_DAGSTER_URL": "dagster",
    "RECOMMENDER_FEAST_URL": "feast",
    "SHOP_DATABASE_URL": "shop",
}
ALERTS = {"mail", "webhook"}


def _role(process):
    """What a process of the services is, and which secrets it was started with; None where it is gone."""
    try:
        argv, environ = " ".join(process.cmdline()), process.environ()
    except psutil.Error:
        return None
    marks = {
        "spawn_main": "run",
        "multiprocessing.forkserver": "steps",
        "dagster api grpc": "code server",
        "dagster._daemon": "daemon",
        "dagster_webserver": "UI",
        "bentoml": "API",
        "orchestration.local.postgres": "keeper",
    }
    role = next((role for mark, role in marks.items() if mark in argv), argv)
    return role, frozenset(SECRETS[name] for name in SECRETS if environ.get(name))


def _family(stack, key):
    """Role and secrets of a service's process and of all that it has started."""
    process = psutil.Process(stack.supervisor.states()[key]["pid"])
    return {_role(one) for one in (process, *process.children(recursive=True))} - {None}


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
        "RECOMMENDER_SMTP_USER": "shop",
        "RECOMMENDER_SMTP_PASSWORD": "right",
        "SHOP_DATABASE_URL": "sqlite:///never-read",
        "RECOMMENDER_SMTP_FROM": "bot@shop.example",
        "RECOMMENDER_SMTP_TO": "data@shop.example",
    }
    stack = Stack(home=home, postgres=postgres, services=[*dagster_services(ui), api_service(api)])
    stack.up(source, environ, print)
    try:
        assert httpx.get(f"http://127.0.0.1:{api}/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{api}/readyz", trust_env=False).status_code == 503
        seen = set()
        assert wait_until(
            lambda: seen.update(_family(stack, "daemon")) or (webhook.received and mail.letters),
            PATIENCE_SECONDS,
            pause=0.2,
        )
        run = {"dagster", "feast", "shop"}
        ran = {secrets for role, secrets in seen if role in ("run", "steps")}
        assert {role for role, _ in seen} >= {"daemon", "code server", "run", "steps"}
        assert ran == {frozenset(run)}
        assert ("daemon", frozenset(run | ALERTS)) in seen
        assert {secrets for _, secrets in _family(stack, "ui")} == {frozenset({"dagster", "feast"})}
        assert {secrets for _, secrets in _family(stack, "api")} == {frozenset({"feast"})}
        assert _family(stack, POSTGRES) == {("keeper", frozenset())}
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
