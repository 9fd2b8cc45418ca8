"""What ends badly is told: by the sensors alone, and by the services of `make up` with schedule and daemon.

Each process of the services has in its environment what it needs, as the kernel says, and no secret of another.
"""

import io
import os
from datetime import UTC, datetime, timedelta

import dagster as dg
import httpx
import psutil
import pytest

from orchestration.alerting.channels import read_services
from orchestration.alerting.outbox import Outbox
from orchestration.assets.metadata import broken_rules, failed_rule
from orchestration.automation import RUN, AlertingResource, alert_delivery, finished_runs, run_outcome
from orchestration.local.instance import (
    DAGSTER_URL,
    child_environment,
    dagster_instance,
    source_file,
    write_instance,
)
from orchestration.local.job_run import run_job
from orchestration.local.postgres import running
from orchestration.local.processes import free_port, wait_until
from orchestration.local.stack import POSTGRES, Stack, api_service, dagster_services
from tests.orchestration.conftest import letter_text, write_broken_shop
from tests.orchestration.local.test_stack import TINY

PATIENCE_SECONDS = 240
UI = "http://127.0.0.1:3000"


@pytest.fixture
def source(tmp_path):
    path = write_broken_shop(tmp_path)
    path.write_text(path.read_text() + '[database]\nurl_env = "SHOP_DATABASE_URL"\n')
    return path


def run_checks(*results):
    """How a run ends in which the checks of one asset give these results."""

    @dg.asset(check_specs=[dg.AssetCheckSpec(result.check_name, asset="orders") for result in results])
    def orders():
        yield dg.MaterializeResult()
        yield from results

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[orders], jobs=[dg.define_asset_job("data")]).resolve_job_def("data")
        run = job.execute_in_process(instance=instance).dagster_run
        return run_outcome(instance, instance.get_run_by_id(run.run_id), UI)


def test_each_broken_rule_of_an_error_is_a_failure_and_warnings_are_none():
    rules = [failed_rule("orders", rule, 3, ["-1"], f"{rule}: correct them") for rule in ("a", "b")]
    error, warning = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    outcome = run_checks(
        dg.AssetCheckResult(check_name="rules", passed=False, severity=error, metadata=broken_rules(rules)),
        dg.AssetCheckResult(check_name="plain", passed=False, severity=error),
        dg.AssetCheckResult(check_name="odd", passed=False, severity=warning),
        dg.AssetCheckResult(check_name="fine", passed=True),
    )
    assert outcome.succeeded
    assert outcome.link == f"{UI}/runs/{outcome.run_id}"
    assert [(failure.subject, failure.cause) for failure in outcome.failures] == [
        ("check rules on orders", "a"),
        ("check rules on orders", "b"),
        ("check plain on orders", "plain"),
    ]
    alert = outcome.failures[0].alert
    assert (alert.table, alert.num_rows, alert.sample) == ("orders", 3, ["-1"])
    passed = {"check rules on orders", "check odd on orders", "check fine on orders", "step orders", RUN}
    assert outcome.passed == passed


def test_a_run_of_a_part_does_not_show_that_the_whole_job_is_well():
    @dg.asset
    def first(): ...

    @dg.asset
    def second(): ...

    job = dg.Definitions(assets=[first, second], jobs=[dg.define_asset_job("data")]).resolve_job_def("data")
    with dg.DagsterInstance.ephemeral() as instance:
        part = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("first")])
        outcome = run_outcome(instance, instance.get_run_by_id(part.run_id), UI)
        assert (outcome.passed, outcome.succeeded) == ({"step first", RUN}, False)
        lost = instance.create_run_for_job(job)
        instance.report_run_failed(lost, "its process is gone")
        (failure,) = run_outcome(instance, instance.get_run_by_id(lost.run_id), UI).failures
    assert (failure.subject, failure.alert.title) == (RUN, "job data failed")
    assert "its process is gone" in failure.alert.detail


@pytest.mark.slow
def test_a_run_of_the_command_line_is_told_when_it_fails_and_when_it_recovers(
    home, postgres, webhook, monkeypatch
):
    monkeypatch.setenv("RECOMMENDER_SLACK_WEBHOOK", webhook.url)

    def tick(sensor, cursor=None):
        """What a sensor says, and its cursor."""
        resources = {"alerting": AlertingResource(url=environment[DAGSTER_URL], ui=UI)}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            return sensor(context).skip_message, context.cursor

    def deliver(minutes):
        outbox = Outbox(
            url=environment[DAGSTER_URL], clock=lambda: datetime.now(UTC) + timedelta(minutes=minutes)
        )
        return outbox.deliver(read_services(os.environ))

    def run(**more):
        values = {**environment, "TINY_SLEEP": "0", **more}
        return run_job(home, values, definitions=TINY, job="recommender", stream=io.BytesIO())

    with running(home, postgres) as databases:
        write_instance(home, {})
        environment = child_environment(home, databases, source_file(None), os.environ)
        with dagster_instance(home, environment) as instance:
            said, begin = tick(finished_runs)
            assert said == "0 runs ended, 0 alerts"
            failed = run(TINY_FAIL="1")
            assert instance.get_run_by_id(failed.run_id).remote_job_origin is None
            said, cursor = tick(finished_runs, begin)
            assert said == "1 runs ended, 1 alerts"
            webhook.status = 500
            with pytest.raises(dg.Failure, match="1 undelivered, answered 500, next attempt") as caught:
                tick(alert_delivery)
            assert "SECRET" not in str(caught.value)
            stack = Stack(home=home, postgres=postgres, services=[])
            (line,) = [line for line in stack.status() if line.startswith("alerts")]
            assert "Slack webhook (RECOMMENDER_SLACK_WEBHOOK): 1 undelivered, answered 500" in line
            assert "SECRET" not in line

            webhook.status = 200
            # the daemon was killed before it kept the cursor
            assert tick(finished_runs, begin) == ("0 runs ended, 0 alerts", begin)
            assert deliver(minutes=1) == {}
            assert tick(alert_delivery)[0] == "every channel has every alert"
            assert not [line for line in stack.status() if line.startswith("alerts")]

            assert run().succeeded
            assert tick(finished_runs, cursor)[0] == "1 runs ended, 1 alerts"
            assert deliver(minutes=2) == {}
    refused, told, recovered = [message["text"] for message in webhook.received]
    assert refused == told
    assert "step evaluated of job recommender failed" in told
    assert "table orders has 3 rows too many" in told and f"{UI}/runs/{failed.run_id}" in told
    assert recovered.startswith("*recovered: step evaluated of job recommender failed (failed once since ")


SECRETS = {
    "RECOMMENDER_SMTP_PASSWORD": "mail",
    "RECOMMENDER_SLACK_WEBHOOK": "webhook",
    "RECOMMENDER_DAGSTER_URL": "dagster",
    "RECOMMENDER_LEDGER_URL": "ledger",
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


@pytest.mark.slow
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
        run = {"dagster", "ledger", "shop"}
        ran = {secrets for role, secrets in seen if role in ("run", "steps")}
        assert {role for role, _ in seen} >= {"daemon", "code server", "run", "steps"}
        assert ran == {frozenset(run)}
        assert ("daemon", frozenset(run | ALERTS)) in seen
        assert {secrets for _, secrets in _family(stack, "ui")} == {frozenset({"dagster"})}
        assert {secrets for _, secrets in _family(stack, "api")} == {frozenset({"ledger"})}
        assert _family(stack, POSTGRES) == {("keeper", frozenset())}
        run = _runs(ui)[-1]
        assert run["jobName"] == "data"
        assert run["status"] == "FAILURE"
        assert {"key": "dagster/schedule_name", "value": "daily_ingestion"} in run["tags"]

        with running(home, postgres) as databases:
            environment = {**child_environment(home, databases, source, environ), "TINY_FAIL": "1"}
            run_job(home, environment, definitions=TINY, job="recommender", stream=io.BytesIO())
        assert wait_until(lambda: len(webhook.received) > 1 and len(mail.letters) > 1, PATIENCE_SECONDS)
    finally:
        stack.down(print)
    said = webhook.received[0]["text"]
    letter = letter_text(mail.letters[0])
    for text in (said, letter):
        assert "exposures.item_id_known" in text
        assert "c99" in text
        assert f"http://127.0.0.1:{ui}/runs/" in text
    assert "table: exposures" in said
    # the schedule's run has failed again meanwhile, which is told already
    (again,) = webhook.received[1:]
    assert again["text"].startswith("*step evaluated of job recommender failed*")
