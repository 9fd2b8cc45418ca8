"""Runs that meet on one home, and runs whose command is killed: real commands, processes and PostgreSQL."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from orchestration.execution.turns import turns
from orchestration.local.instance import (
    PROJECT,
    child_environment,
    dagster_instance,
    fail_lost_runs,
    source_file,
    write_instance,
)
from orchestration.local.postgres import running
from orchestration.local.processes import free_port, wait_gone, wait_until
from orchestration.local.stack import Stack, dagster_services

pytestmark = pytest.mark.slow
TINY = "tests.orchestration.tiny_definitions"
CODE = f"""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs behind
context = cli.Context(home=home, postgres=postgres, environ=dict(os.environ), definitions={TINY!r})
try:
    sys.exit(cli.run(context, None))
except KeyboardInterrupt:
    sys.exit(130)
"""


class Command:
    """A started `python -m orchestration run`, and the lines that it printed so far."""

    def __init__(self, argv, seconds, **environ):
        environ = {**os.environ, "TINY_SLEEP": str(seconds), **environ}
        self.process = subprocess.Popen(
            argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self.lines = []

    def wait_for(self, text):
        """Read until a line has the text; that line."""
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip())
            if text in self.lines[-1]:
                return self.lines[-1]
        raise AssertionError("\n".join(self.lines))

    def run_id(self):
        return self.wait_for("run ").removeprefix("run ")

    def end(self):
        """Read to the end; the exit code."""
        self.lines += [line.decode().rstrip() for line in self.process.stderr]
        return self.process.wait(timeout=120)


@pytest.fixture
def command(program):
    started = []

    def start(seconds, **environ):
        started.append(Command(program(CODE), seconds, **environ))
        return started[-1]

    yield start
    for each in started:
        family = [each.process.pid, *(c.pid for c in children(each.process))]
        for pid in family if each.process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        each.process.stderr.close()
        each.process.wait()


@pytest.fixture
def environment(home, postgres):
    with running(home, postgres) as databases:
        write_instance(home, {})
        yield child_environment(home, databases, source_file(None), os.environ)


def children(process):
    return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []


def step_times(home, environment, run_id):
    """When a run's first step began and its last ended."""
    with dagster_instance(home, environment) as instance:
        events = [record.event_log_entry for record in instance.get_records_for_run(run_id).records]
    of_steps = [
        event.timestamp
        for event in events
        if event.dagster_event and event.dagster_event.event_type_value in ("STEP_START", "STEP_SUCCESS")
    ]
    return min(of_steps), max(of_steps)


def status(home, environment, run_id):
    with dagster_instance(home, environment) as instance:
        return instance.get_run_by_id(run_id).status.value


def test_the_second_command_says_what_it_waits_for_and_runs_after_it(home, environment, command):
    first = command(20)
    ahead = first.run_id()
    first.wait_for("… landed")
    second = command(0)
    behind = second.run_id()
    assert f"waits for run {ahead[:8]}, at work since " in second.wait_for("waits for")
    assert second.end() == 0, second.lines
    assert first.end() == 0, first.lines
    assert step_times(home, environment, behind)[0] > step_times(home, environment, ahead)[1]


def test_a_command_that_waits_is_interrupted_cleanly(home, environment, command):
    first = command(30)
    ahead = first.run_id()
    first.wait_for("… landed")
    second = command(0)
    behind = second.run_id()
    second.wait_for("waits for")
    begun = time.monotonic()
    os.killpg(second.process.pid, signal.SIGINT)
    assert second.end() == 130
    assert time.monotonic() - begun < 15
    assert status(home, environment, behind) == "CANCELED"
    assert first.end() == 0, first.lines
    assert status(home, environment, ahead) == "SUCCESS"


def test_nothing_outlives_a_killed_command_and_the_next_one_runs_at_once(home, environment, command):
    killed = command(600)
    lost = killed.run_id()
    killed.wait_for("… landed")
    family = children(killed.process)
    assert len(family) > 2  # the run, what forks its steps, and a step
    killed.process.kill()
    assert wait_gone(family, 15) == []
    following = command(0)
    assert following.end() == 0, following.lines
    assert not [line for line in following.lines if "waits for" in line]
    assert status(home, environment, lost) in ("FAILURE", "CANCELED")


def test_steps_end_with_their_run_whoever_started_it_and_do_not_block_the_next(home, environment, command):
    execute = [sys.executable, "-m", "dagster", "job", "execute", "-m", TINY, "-j", "recommender"]
    environ = {**environment, "TINY_SLEEP": "600"}
    plain = subprocess.Popen(
        execute, env=environ, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert any(b"STEP_START" in line for line in plain.stderr)
        waiting = command(0)
        waiting.wait_for("waits for")
        family = children(plain)
    finally:
        plain.kill()
        plain.wait()
        plain.stderr.close()
    assert wait_gone(family, 10) == []
    assert waiting.end() == 0, waiting.lines
    lost = []  # a run that nobody watched is given a minute to join the queue
    assert wait_until(
        lambda: lost.extend(fail_lost_runs(home, environment, daemon=True)) or lost, 90, pause=5
    )
    assert [status(home, environment, run_id) for run_id in lost] == ["FAILURE"]


def test_a_hung_run_that_is_given_up_ends_and_the_next_one_goes(home, environment, command):
    hung = command(0, TINY_HANG="1")
    run_id = hung.run_id()
    hung.wait_for("… landed")
    family = children(hung.process)
    waiting = command(0)
    waiting.wait_for("waits for")
    with dagster_instance(home, environment) as instance:  # as Dagster's daemon does
        instance.report_run_failed(instance.get_run_by_id(run_id), "Exceeded maximum runtime of 5 seconds.")
    assert wait_gone(family, 40) == []
    assert hung.end() == 1
    assert "Exceeded maximum runtime of 5 seconds." in "\n".join(hung.lines)
    assert waiting.end() == 0, waiting.lines


def test_the_daemon_ends_a_run_that_takes_too_long(home, postgres, environment):
    stack = Stack(home=home, postgres=postgres, services=dagster_services(free_port(), TINY))
    limited = {**os.environ, "TINY_HANG": "1", "RECOMMENDER_MAX_RUN_HOURS": str(5 / 3600)}
    stack.up(source_file(None), limited, lambda _line: None)
    try:
        launch = [sys.executable, "-m", "dagster", "job", "launch", "-m", TINY, "-j", "recommender"]
        subprocess.run(launch, env=environment, cwd=PROJECT, check=True, capture_output=True)
        assert wait_until(lambda: turns(home.queue), 120, pause=0.5)
        with dagster_instance(home, environment) as instance:
            assert wait_until(lambda: instance.get_runs()[0].is_finished, 120, pause=1)
            assert instance.get_runs()[0].is_failure
        assert wait_until(lambda: not turns(home.queue), 60, pause=0.5)
    finally:
        stack.down(lambda _line: None)


def test_a_command_and_a_run_of_the_daemon_wait_for_each_other(home, postgres, environment, command):
    stack = Stack(home=home, postgres=postgres, services=dagster_services(free_port(), TINY))
    stack.up(source_file(None), {**os.environ, "TINY_SLEEP": "20"}, lambda _line: None)

    def statuses():
        with dagster_instance(home, environment) as instance:
            return [run.status.value for run in instance.get_runs()]

    try:
        launch = [sys.executable, "-m", "dagster", "job", "launch", "-m", TINY, "-j", "recommender"]
        subprocess.run(launch, env=environment, cwd=PROJECT, check=True, capture_output=True)
        assert wait_until(lambda: statuses() == ["STARTED"], 120, pause=0.5)
        first = command(20)
        first.wait_for("waits for")
        subprocess.run(launch, env=environment, cwd=PROJECT, check=True, capture_output=True)
        first.wait_for("… landed")
        assert statuses() == ["QUEUED", "STARTED", "SUCCESS"]
        assert first.end() == 0, first.lines
        assert wait_until(lambda: statuses() == ["SUCCESS"] * 3, 120, pause=0.5)
    finally:
        stack.down(lambda _line: None)
