"""The services and the run, with real processes: start, failure, ports in use, recycled numbers, stop."""

import dataclasses
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from expectations.errors import ServiceError, SettingError
from expectations.telemetry import OFF
from orchestration.local import cli
from orchestration.local.instance import (
    DEFAULTS,
    PROJECT,
    child_environment,
    dagster_instance,
    fail_lost_runs,
    source_file,
    write_instance,
)
from orchestration.local.job_run import StepOutput, run_job
from orchestration.local.postgres import running
from orchestration.local.postgres_server import Server
from orchestration.local.processes import free_port, is_free, stop, wait_gone, wait_until
from orchestration.local.stack import (
    Ports,
    Service,
    Stack,
    api_service,
    dagster_services,
    responds,
    serving,
)

TINY = "tests.orchestration.tiny_definitions"
TINY_SERVICE = "tests.orchestration.tiny_service:Recommender"


@pytest.fixture
def environment(home, postgres):
    """That of the programs that we start, while PostgreSQL runs."""
    with running(home, postgres) as databases:
        write_instance(home, {})
        yield child_environment(home, databases, source_file(None), os.environ)


@pytest.fixture
def context(home, postgres):
    return cli.Context(
        home=home, postgres=postgres, environ=dict(os.environ), definitions=TINY, service=TINY_SERVICE
    )


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def sleeper(**more):
    values = {
        "key": "sleeper",
        "title": "Sleeper",
        "program": "api",
        "argv": ["sleep", "60"],
        "is_ready": lambda: True,
    }
    return Service(**{**values, **more})


def web_server(port, **more):
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    ready = f"http://127.0.0.1:{port}/"
    return sleeper(key="web", title="Web", argv=argv, port=port, is_ready=lambda: responds(ready), **more)


def test_a_program_that_ignores_its_signal_is_killed_with_its_children():
    code = """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("ready", flush=True)
        time.sleep(60)
    """
    program = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert program.stdout.readline() == b"ready\n"
    program.stdout.close()
    process = psutil.Process(program.pid)
    (child,) = process.children()
    stop(process, first=signal.SIGTERM, grace=0.3)
    assert program.wait() == -signal.SIGKILL
    assert is_gone(child)


def test_a_service_for_a_block_is_stopped_after_it(home):
    service = web_server(free_port())
    with serving(service, home, os.environ) as url:
        assert httpx.get(url).is_success
    assert not responds(url)


def test_a_port_in_use_names_who_has_it_and_what_to_do(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = web_server(port, option="--port-web")
        message = (
            rf"Web cannot have port {port}: .*process {os.getpid()}.*choose another port with --port-web"
        )
        with pytest.raises(ServiceError, match=message), serving(service, home, os.environ):
            pass


def test_a_service_that_ends_at_once_shows_its_log(home):
    argv = [sys.executable, "-c", "raise SystemExit('no model was ever trained')"]
    service = sleeper(argv=argv, is_ready=lambda: False)
    expected = r"(?s)Sleeper ended at once.*no model was ever trained"
    with pytest.raises(ServiceError, match=expected), serving(service, home, os.environ):
        pass


def test_steps_output_is_told_from_dagsters_log():
    output = StepOutput()
    record = b"2026-11-23 14:01:45 +0000 - dagster - %s - recommender - 1 - STEP_START - x\n"
    assert output.feed(b"loading\n" + record % b"DEBUG" + b"\r 10 %") == b"loading\n\r 10 %"
    assert output.feed(b"\r 20 %") == b"\r 20 %"
    assert output.feed(b"\n" + (record % b"INFO")[:30]) == b"\n"
    assert output.feed((record % b"INFO")[30:] + b"done\n") == b"done\n"
    assert output.feed(b"\x1b[34m" + record % b"ERROR" + b"Stack Trace:\n  File x\n") == b""
    assert output.feed(record % b"DEBUG" + b"again\n") == b"again\n"


def test_a_wrong_alert_setting_is_told_before_anything_starts(context, home):
    wrong = dataclasses.replace(context, environ={"RECOMMENDER_SLACK_WEBHOOK": "hooks.slack.com/T/B"})
    with pytest.raises(SettingError, match="RECOMMENDER_SLACK_WEBHOOK is no address"):
        cli.up(wrong, None, Ports())
    assert not home.root.exists()


@pytest.mark.slow
def test_a_failing_service_takes_what_was_started_down_with_it(home, postgres):
    good = web_server(free_port())
    bad = sleeper(argv=[sys.executable, "-c", "raise SystemExit('broken')"], is_ready=lambda: False)
    stack = Stack(home=home, postgres=postgres, services=[good, bad])
    with pytest.raises(ServiceError, match="broken"):
        stack.up(source_file(None), os.environ, lambda _line: None)
    assert not responds(f"http://127.0.0.1:{good.port}/")
    assert all("not running" in line for line in stack.status())


@pytest.mark.slow
def test_what_dies_is_started_again_and_a_killed_supervisor_leaves_nothing(home, postgres):
    web = web_server(free_port())
    services = [web, sleeper()]
    stack = Stack(home=home, postgres=postgres, services=services)
    try:
        stack.up(source_file(None), os.environ, lambda _line: None)
        assert stack.supervisor.socket.stat().st_mode & 0o777 == 0o600
        with serving(web, home, os.environ) as url:  # it runs: it is used and left running
            assert responds(url)
        first, database = stack.supervisor.states()["web"]["pid"], stack.server.process()
        psutil.Process(first).kill()
        database.kill()
        assert wait_until(
            lambda: stack.supervisor.states()["web"]["pid"] not in (0, first) and web.is_ready(), 60
        )
        assert wait_until(lambda: stack.server.process() not in (None, database), 60)
        secret = (home.postgres / "password").read_text().strip()
        assert secret not in (home.supervisor / "supervisord.conf").read_text()

        left = psutil.Process(stack.supervisor.states()["sleeper"]["pid"])
        left.parent().kill()
        assert left.is_running()
        said = []
        stack.down(said.append)
        assert "stopped PostgreSQL" in said
        assert is_gone(left)
    finally:
        stack.down(lambda _line: None)
    assert all("not running" in line for line in stack.status())


@pytest.mark.slow
def test_a_run_tells_its_steps_and_a_failing_one_plainly(home, environment):
    stream = io.BytesIO()
    done = run_job(home, environment, definitions=TINY, job="recommender", stream=stream)
    shown = stream.getvalue().decode()
    assert done.succeeded, shown
    assert float(re.search(r"✓ landed +([0-9.]+) s", shown)[1]) > 1
    assert "! check enough_rows on landed: WARN" in shown
    assert "landing 3/3" in shown
    assert "STEP_START" not in shown
    assert "a line of Dagster's log" in done.log.read_text()
    with dagster_instance(home, environment) as instance:
        assert instance.get_run_by_id(done.run_id).is_success
    assert fail_lost_runs(home, environment) == []

    failing = {**environment, "TINY_FAIL": "1"}
    failed = run_job(home, failing, definitions=TINY, job="recommender", stream=stream)
    assert not failed.succeeded
    assert failed.failures == {"evaluated": "ValueError: table orders has 3 rows too many; remove them"}


@pytest.mark.slow
def test_a_killed_step_says_what_ended_it_and_a_refused_model_has_its_own_exit_code(context, capfd):
    killed = dataclasses.replace(context, environ={**os.environ, "TINY_KILL": "1"})
    assert cli.run(killed, None) == 1
    told = capfd.readouterr().err
    assert "evaluated failed: the process of this step was ended" in told and "memory ran out" in told
    assert "ChildProcessCrash" not in told

    refused = dataclasses.replace(context, environ={**os.environ, "TINY_REFUSE": "1"})
    assert cli.run(refused, None) == cli.REFUSED == 3
    out, err = capfd.readouterr()
    assert "the gate refused model 4f0c9a1b2c3d" in err and "auc is worse than the champion's" in err
    assert "the run failed" not in err and "Traceback" not in err
    assert "! check approved on evaluated: ERROR" in err
    with running(context.home, context.postgres) as address:
        environment = child_environment(context.home, address, source_file(None), os.environ)
        assert run_statuses(context.home, environment) == {"recommender": ["SUCCESS", "FAILURE"]}
    assert "the gate REJECTED this model" in out


def run_statuses(home, environment):
    """The statuses of each job's runs, the latest first."""
    statuses = {}
    with dagster_instance(home, environment) as instance:
        for run in instance.get_runs():
            statuses.setdefault(run.job_name, []).append(run.status.value)
    return statuses


@pytest.mark.slow
def test_one_run_of_the_pipeline_goes_at_a_time_and_a_rollback_waits_for_none(home, postgres, environment):
    stack = Stack(home=home, postgres=postgres, services=dagster_services(free_port(), TINY))
    stack.up(source_file(None), {**os.environ, "TINY_SLEEP": "600"}, lambda _line: None)
    try:
        for job in ("recommender", "recommender", "at_once"):
            launch = [sys.executable, "-m", "dagster", "job", "launch", "-m", TINY, "-j", job]
            subprocess.run(launch, env=environment, cwd=PROJECT, check=True, capture_output=True)
        assert wait_until(lambda: run_statuses(home, environment).get("at_once") == ["SUCCESS"], 120, pause=1)
        assert run_statuses(home, environment)["recommender"] == ["QUEUED", "STARTED"]
    finally:
        stack.down(lambda _line: None)


@pytest.mark.slow
def test_plain_dagster_works_on_the_same_instance(home, context, capfd):
    assert cli.execute(context, ["dagster", "asset", "list", "-m", TINY]) == 0
    assert capfd.readouterr().out.split() == ["evaluated", "landed"]
    assert cli.execute(context, ["sh", "-c", "exit 7"]) == 7
    with pytest.raises(ServiceError, match="no program dagstre"):
        cli.execute(context, ["dagstre"])
    assert Server(home=home, port=1).process() is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_stopped_leaves_nothing_that_it_started(home, tmp_path, number):
    port, environ = free_port(), {**os.environ, "RECOMMENDER_HOME": str(home.root)}
    serve = ["exec", "bentoml", "serve", TINY_SERVICE, "--port", str(port), "--working-dir", str(PROJECT)]
    with (tmp_path / "log").open("wb") as log:
        command = subprocess.Popen(
            [sys.executable, "-m", "orchestration", *serve],
            env=environ,
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            # a shell that starts the tests in the background lets them ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
    try:
        assert wait_until(lambda: responds(f"http://127.0.0.1:{port}/healthz"), 120, pause=0.3)
        family = psutil.Process(command.pid).children(recursive=True)
        assert len(family) > 1  # what supervises the workers, and those
        begun = time.monotonic()
        command.send_signal(number)
        assert command.wait(timeout=120) in (143, 130)
        assert time.monotonic() - begun < 60
        assert [process for process in family if not is_gone(process)] == []
        assert is_free(port)
        assert Server(home=home, port=None).process() is None
    finally:
        command.kill()
        command.wait()


@pytest.mark.slow
def test_a_killed_run_is_written_down_as_failed_at_the_next_start(home, environment, program):
    code = f"run_job(home, json.load(sys.stdin), definitions={TINY!r}, job='recommender', stream=sys.stdout.buffer)"
    runner = subprocess.Popen(program(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    runner.stdin.write(json.dumps({**environment, "TINY_SLEEP": "300"}).encode())
    runner.stdin.close()
    wait_for_line(runner.stdout, "… landed")
    family = [psutil.Process(runner.pid), *psutil.Process(runner.pid).children(recursive=True)]
    assert fail_lost_runs(home, environment) == []  # it is alive
    for process in family:
        process.kill()
    runner.wait()
    runner.stdout.close()
    assert wait_gone(family, 20) == []
    (lost,) = fail_lost_runs(home, environment)
    with dagster_instance(home, environment) as instance:
        assert instance.get_run_by_id(lost).is_failure


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_written_down_as_failed_by_who_started_it(home, environment):
    stream, environment = io.BytesIO(), {**environment, "TINY_SLEEP": "300"}
    with ThreadPoolExecutor() as pool:
        running_job = pool.submit(
            run_job, home, environment, definitions=TINY, job="recommender", stream=stream
        )
        assert wait_until(lambda: "… landed".encode() in stream.getvalue(), 120)
        (process,) = [child for child in psutil.Process().children() if "execute" in child.cmdline()]
        for member in [*process.children(recursive=True), process]:
            member.kill()
        done = running_job.result(timeout=60)
    assert "memory ran out" in done.failures["the run"]
    with dagster_instance(home, environment) as instance:
        assert instance.get_run_by_id(done.run_id).is_failure


def wait_for_line(stream, text):
    assert any(text in line.decode() for line in stream)


@pytest.mark.slow
def test_the_demo_runs_asks_for_three_households_and_leaves_nothing_running(
    context, capfd, tmp_path, outside
):
    ports, (proxy, callers), user = Ports(api=free_port()), outside, tmp_path / "user"
    user.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in {*OFF, *DEFAULTS}}
    environ |= {"HOME": str(user), **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy)}
    assert cli.demo(dataclasses.replace(context, environ=environ), ports) == 0
    assert callers == [], "something reported to its maker"
    assert [path.name for path in user.rglob("*") if path.is_file()] == []
    out, err = capfd.readouterr()
    assert re.findall(r"^household .*", out, re.MULTILINE) == ["household 1", "household 2", "household 3"]
    assert "because bought coffee" in out
    assert out.index("household 3") < out.index("0.7500") < out.index("make up")
    assert "✓ evaluated" in err
    assert all("not running" in line for line in context.stack(ports).status())

    failing = dataclasses.replace(context, environ={**os.environ, "TINY_FAIL": "1"})
    assert cli.run(failing, None) == 1
    out, err = capfd.readouterr()
    assert "evaluated failed: ValueError: table orders has 3 rows too many; remove them" in err
    assert "auc" not in out.lower()  # the last run's table is not shown for this one


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_is_cancelled_and_stops_what_it_started(home, postgres, program, number):
    code = f"""
        signal.signal(signal.SIGTERM, cli._terminate)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs behind
        environ = {{**os.environ, "TINY_SLEEP": "300"}}
        cli.run(cli.Context(home=home, postgres=postgres, environ=environ, definitions={TINY!r}), None)
    """
    runner = subprocess.Popen(program(code), stderr=subprocess.PIPE, start_new_session=True)
    wait_for_line(runner.stderr, "… landed")
    family = psutil.Process(runner.pid).children(recursive=True)
    # Ctrl-C reaches the whole group, a supervisor's SIGTERM the command alone
    os.killpg(runner.pid, number) if number == signal.SIGINT else runner.send_signal(number)
    assert runner.wait(timeout=120) != 0
    runner.stderr.close()
    assert Server(home=home, port=postgres.port).process() is None
    assert all(map(is_gone, family))
    with running(home, postgres) as databases:
        environment = child_environment(home, databases, source_file(None), os.environ)
        with dagster_instance(home, environment) as instance:
            (run,) = instance.get_runs()
            assert run.is_finished, run.status


@pytest.mark.slow
def test_a_definitions_module_that_does_not_load_is_told(home, environment):
    done = run_job(home, environment, definitions="tests.nowhere", job="recommender", stream=io.BytesIO())
    assert not done.succeeded
    assert "tests.nowhere" in done.failures["the run"]


@pytest.mark.slow
def test_up_twice_then_down_with_dagster_and_bentoml(home, postgres):
    ui, api = free_port(), free_port()
    services = [*dagster_services(ui, TINY), api_service(api, TINY_SERVICE)]
    stack = Stack(home=home, postgres=postgres, services=services)
    said = []
    try:
        stack.up(source_file(None), os.environ, said.append)
        assert f"http://127.0.0.1:{ui}" in "\n".join(said)
        (reply,) = cli.ask(f"http://127.0.0.1:{api}", ["1178"])
        assert reply["items"][0]["text"] == "a coupon for 1178"
        counted = httpx.get(f"http://127.0.0.1:{api}/metrics", trust_env=False).text
        assert "bentoml_service_request_total" in counted
        processes = pids(stack)
        stack.up(source_file(None), os.environ, said.append)
        assert pids(stack) == processes
        with pytest.raises(ServiceError, match="make down"):
            stack.up(Path("/another/source.toml"), os.environ, said.append)
        family = [c for pid in processes for c in [psutil.Process(pid), *psutil.Process(pid).children(True)]]
    finally:
        stack.down(said.append)
    assert "stopped Dagster UI" in said
    assert "stopped PostgreSQL" in said
    assert all(map(is_gone, family))
    assert not responds(f"http://127.0.0.1:{ui}/server_info")
    assert all("not running" in line for line in stack.status())


def pids(stack):
    return [state["pid"] for state in stack.supervisor.states().values()]
