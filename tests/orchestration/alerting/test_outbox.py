"""The outbox in a real PostgreSQL, with real channels that fail, and processes that are killed."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from expectations.errors import TransientError
from orchestration.alerting.alert import Alert, Failure, RunOutcome
from orchestration.alerting.channels import MAX_ALERTS, SLACK, read_services
from orchestration.alerting.outbox import Outbox
from orchestration.home import Home
from orchestration.local.instance import PROJECT
from orchestration.local.postgres import PostgresSettings, database_url, running
from orchestration.local.processes import free_port

pytestmark = pytest.mark.slow

FIRST = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)
DAY = timedelta(days=1)
CHECK = "check critical_rules on exposures"


class Clock:
    now = FIRST

    def __call__(self):
        return self.now

    def go(self, **more):
        self.now += timedelta(**more)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    home, settings = Home(root=tmp_path_factory.mktemp("outbox")), PostgresSettings(port=free_port())
    with running(home, settings) as databases:
        yield database_url(databases["dagster"])


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(url, clock):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA IF EXISTS alerting CASCADE"))
    outbox = Outbox(url=url, clock=clock)
    outbox.create_tables()
    return outbox


@pytest.fixture
def slack(webhook):
    return read_services({"RECOMMENDER_SLACK_WEBHOOK": webhook.url})


def broken(rule="item_id_known", **more):
    alert = Alert(title="check critical_rules failed on exposures", table="exposures", rule=rule, **more)
    return Failure(subject=CHECK, cause=rule, alert=alert)


def ended(run_id, *failures, **more):
    return RunOutcome(run_id=run_id, job="data", link=f"http://ui/runs/{run_id}", failures=failures, **more)


def test_an_endpoint_that_was_down_three_times_gets_the_alert_once(outbox, clock, webhook, slack):
    outbox.record(ended("1", broken()), slack)
    webhook.status = 503
    for wait in (30, 60, 120):
        assert outbox.deliver(slack) == {SLACK: "answered 503"}
        clock.go(seconds=wait - 1)
        assert outbox.deliver(slack) == {}, "tried too early"
        clock.go(seconds=1)
    assert len(webhook.received) == 3
    webhook.status = 200
    assert outbox.deliver(slack) == {}
    clock.go(hours=2)
    assert outbox.deliver(slack) == {}
    assert len(webhook.received) == 4
    assert outbox.undelivered() == []


def test_the_wait_is_an_hour_at_most_and_an_alert_is_given_up_after_three_days(outbox, clock, webhook, slack):
    outbox.record(ended("1", broken()), slack)
    webhook.status, waits = 500, []
    while outbox.deliver(slack):
        (channel,) = outbox.undelivered()
        waits.append(channel.next_attempt_at - clock.now)
        clock.now = channel.next_attempt_at
    assert waits[:8] == [timedelta(seconds=min(30 * 2**i, 3600)) for i in range(8)]
    assert set(waits[8:]) == {timedelta(hours=1)}
    assert 3 * DAY <= clock.now - FIRST < 3 * DAY + timedelta(hours=1)
    (channel,) = outbox.undelivered()
    assert channel.text() == f"{SLACK}: 0 undelivered, 1 given up, answered 500"
    webhook.status = 200
    outbox.record(ended("2", broken("another")), slack)
    assert outbox.deliver(slack) == {}
    assert "another" in webhook.received[-1]["text"] and "item_id_known" not in webhook.received[-1]["text"]


def test_one_channel_that_is_down_neither_stops_nor_doubles_the_other(outbox, clock, webhook, mail):
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(mail.port),
        "FROM": "bot@shop.example",
        "TO": "data@shop.example",
    }
    environ = {f"RECOMMENDER_SMTP_{name}": value for name, value in settings.items()}
    services = read_services({**environ, "RECOMMENDER_SLACK_WEBHOOK": webhook.url})
    webhook.status = 500
    outbox.record(ended("1", broken()), services)
    for _ in range(3):
        assert list(outbox.deliver(services)) == [SLACK]
        clock.go(hours=1)
    outbox.record(ended("2", broken("another")), services)
    outbox.deliver(services)
    assert len(mail.letters) == 2
    (channel,) = outbox.undelivered()
    assert channel.text().startswith(f"{SLACK}: 2 undelivered, answered 500, next attempt 0")
    assert "SECRET" not in repr(channel) + repr(outbox)
    webhook.status = 200
    clock.go(hours=1)
    outbox.deliver(services)
    clock.go(hours=1)
    outbox.deliver(services)
    said = "\n".join(message["text"] for message in webhook.received[4:])
    assert said.count("item_id_known") == said.count("another") == 1
    assert len(mail.letters) == 2


def child(code, url, **environ):
    """A process that has the outbox, the Slack channel of its environment, and an outcome with a failure."""
    prelude = f"""if True:
        import os, time
        from orchestration.alerting.channels import read_services
        from orchestration.alerting.outbox import Outbox
        from tests.orchestration.alerting.test_outbox import Clock, broken, ended
        outbox, services = Outbox(url={url!r}, clock=Clock()), read_services(os.environ)
        {code}
    """
    return subprocess.Popen(
        [sys.executable, "-c", prelude], env={**os.environ, **environ}, stdout=subprocess.PIPE, cwd=PROJECT
    )


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_process_killed_between_failure_and_delivery_loses_nothing(outbox, url, webhook, slack):
    code = "outbox.record(ended('1', broken()), services); print('recorded', flush=True); time.sleep(60)"
    process = child(code, url, RECOMMENDER_SLACK_WEBHOOK=webhook.url)
    assert process.stdout.readline() == b"recorded\n"
    kill(process)
    assert outbox.record(ended("1", broken()), slack) == []  # the next process reads the run again
    outbox.deliver(slack)
    outbox.deliver(slack)
    assert len(webhook.received) == 1


def test_who_is_sending_keeps_others_away_until_it_is_killed(outbox, url, webhook, slack):
    outbox.record(ended("1", broken()), slack)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        process = child("outbox.deliver(services)", url, RECOMMENDER_SLACK_WEBHOOK=address)
        connection, _ = silent.accept()
        with connection:
            assert outbox.deliver(slack) == {}
            outbox.record(ended("2", broken("another")), slack)
            assert process.poll() is None and webhook.received == []
            kill(process)
    outbox.deliver(slack)
    (message,) = webhook.received
    assert "item_id_known" in message["text"] and "another" in message["text"]


def test_the_same_failure_five_times_is_one_message_and_one_reminder_a_day(outbox, clock, webhook, slack):
    for run_id in "12345":
        outbox.record(ended(run_id, broken(link=f"http://ui/runs/{run_id}")), slack)
        outbox.deliver(slack)
        clock.go(hours=1)
    assert len(webhook.received) == 1
    outbox.record(ended("5", broken()), slack)  # read again: not counted again
    clock.now = FIRST + DAY
    for run_id in "678":
        outbox.record(ended(run_id, broken(link=f"http://ui/runs/{run_id}")), slack)
        outbox.deliver(slack)
        clock.go(hours=7)
    assert len(webhook.received) == 2
    still = "*still: check critical_rules failed on exposures (failed 6 times since 2026-11-29 03:00 UTC)*"
    assert still in webhook.received[1]["text"]
    assert "http://ui/runs/6" in webhook.received[1]["text"]


@pytest.mark.parametrize("how", [{"succeeded": True}, {"passed": {CHECK}}])
def test_a_failure_recovers_once_and_is_told_anew_when_it_comes_back(outbox, webhook, how):
    services = read_services({"RECOMMENDER_ALERT_URLS": webhook.url.replace("http", "json")})
    outbox.record(ended("1", broken()), services)
    outbox.record(ended("2", broken()), services)
    assert outbox.record(ended("3", passed={"step training"}), services) == []
    assert outbox.record(replace(ended("4", **how), job="another"), services) == []
    outbox.deliver(services)
    (recovered,) = outbox.record(ended("5", **how), services)
    assert outbox.record(ended("6", **how), services) == []
    outbox.deliver(services)
    first, second = webhook.received
    assert first["type"] == "failure" and second["type"] == "info"
    title = "recovered: check critical_rules failed on exposures (failed 2 times since 2026-11-29 03:00 UTC)"
    assert second["title"] == recovered.title == title
    assert "http://ui/runs/5" in second["message"]
    assert outbox.record(ended("7", broken()), services) == [broken().alert]
    assert outbox.record(ended("6", **how), services) == []  # a run that is read again changes nothing


def test_of_a_check_the_rules_that_hold_again_recover_and_the_others_stay(outbox, slack):
    outbox.record(ended("1", broken("a"), broken("b")), slack)
    (recovered,) = outbox.record(ended("2", broken("b"), passed={CHECK}), slack)
    assert recovered.rule == "a"
    # what failed in a run that succeeded all the same has not recovered
    assert outbox.record(ended("3", broken("b"), succeeded=True), slack) == []


def test_a_run_is_recorded_wholly_or_not_at_all(outbox, slack):
    with pytest.raises(sa.exc.StatementError, match="not JSON serializable"):
        outbox.record(ended("1", broken("a"), broken("b", detail=object())), slack)
    assert outbox.unread(["1"]) == {"1"}
    assert [alert.rule for alert in outbox.record(ended("1", broken("a"), broken("b")), slack)] == ["a", "b"]
    assert outbox.unread(["1", "2"]) == {"2"}


def test_many_alerts_are_parted_and_after_a_refusal_fewer_are_sent(outbox, clock, webhook, slack):
    outbox.record(ended("1", *(broken(f"rule_{i:02}") for i in range(MAX_ALERTS + 2))), slack)
    webhook.status = 413
    outbox.deliver(slack)
    clock.go(seconds=30)
    webhook.status = 200
    for _ in range(3):
        outbox.deliver(slack)
    refused, *taken = [message["text"].count("rule: ") for message in webhook.received]
    assert refused == MAX_ALERTS
    assert taken == [MAX_ALERTS // 2, MAX_ALERTS // 2 + 2]


def test_values_that_are_no_text_are_told(outbox, webhook, slack):
    outbox.record(ended("1", broken(sample=["a\0b", "c\ud800"])), slack)
    assert outbox.deliver(slack) == {}
    assert "sample: a\0b, c?" in webhook.received[0]["text"]


def test_a_channel_whose_setting_is_gone_is_told_and_its_alerts_wait_for_it(outbox, webhook, slack):
    outbox.record(ended("1", broken()), slack)
    assert outbox.deliver({}) == {}
    (channel,) = outbox.undelivered()
    assert "1 undelivered, its setting is gone" in channel.text()
    outbox.deliver(slack)
    assert len(webhook.received) == 1


def test_without_channels_alerts_go_to_the_log_and_nothing_waits(outbox, caplog):
    outbox.record(ended("1", broken()), [])
    (record,) = [record for record in caplog.records if record.name == "orchestration.alerting.outbox"]
    assert "failed on exposures; table: exposures; rule: item_id_known" in record.getMessage()
    assert outbox.undelivered() == []


def test_what_is_old_is_deleted_but_an_open_failure(outbox, clock, webhook, slack):
    outbox.record(ended("1", broken("a"), broken("b")), slack)
    outbox.record(ended("2", broken("b"), passed={CHECK}), slack)
    clock.go(days=31)
    outbox.record(ended("3"), slack)
    assert outbox.unread(["1", "2", "3"]) == {"1", "2"}
    assert outbox.undelivered() == []
    (reminder,) = outbox.record(ended("4", broken("b")), slack)
    assert "failed 3 times" in reminder.title


def test_a_database_that_does_not_answer_is_a_transient_error_without_the_password(url):
    gone = sa.make_url(url).set(port=free_port(), password="hush")
    with pytest.raises(TransientError, match="Connection refused") as caught:
        Outbox(url=gone.render_as_string(hide_password=False)).undelivered()
    assert "hush" not in str(caught.value)
