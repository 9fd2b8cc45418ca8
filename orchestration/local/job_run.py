"""One run of a whole job as a process of its own, told in a line per step.

Dagster's own event log says which step runs, ended or failed. What the steps print (progress bars) is passed
through as it comes; Dagster's log lines go to the run's log file only.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from expectations.storage.atomic import write_text
from orchestration.environment import given
from orchestration.execution.turns import WAITS
from orchestration.home import Home
from orchestration.local.instance import LAUNCH_TAG, PROJECT, dagster_instance
from orchestration.local.processes import end_child, tail
from orchestration.run_events import (
    KILLED,
    broken_rules,
    failure_reason,
    rule_text,
    stopped_by_checks,
)

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance

_NOISE = (b"nanobind: ", b" - leaked ", b" - ... skipped ", b"See https://nanobind", b"Error: Run ")
"""What DuckDB's bindings and Dagster's command say when they end: it tells the reader nothing, and stays in the log."""

_CRASH = b" - ENGINE_EVENT - Multiprocess executor: child process for step "
POLL_SECONDS = 0.5
GRACE_SECONDS = 30
_RECORD = re.compile(rb"^(?:\x1b\[[0-9;]*m)*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} - dagster\S* - (\w+) - ")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        run_id: Dagster's id; None where the run did not come to be.
        succeeded: whether every step did.
        failures: step -> what went wrong, in plain words.
        log: everything that the run printed.
        began: when its first step began, after those runs that it waited for; seconds since 1970.
    """

    run_id: str | None
    succeeded: bool
    failures: Mapping[str, str]
    log: Path
    began: float | None


class Console:
    """Lines of ours and raw output of the steps on one stream, without one falling into the other."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._at_start = True

    def line(self, text: str) -> None:
        """Print a line, on a line of its own."""
        with self._lock:
            self._stream.write((b"" if self._at_start else b"\n") + text.encode() + b"\n")
            self._stream.flush()
            self._at_start = True

    def raw(self, output: bytes) -> None:
        """Pass output through as it is, carriage returns and all."""
        with self._lock:
            self._stream.write(output)
            self._stream.flush()
            self._at_start = output.endswith((b"\n", b"\r"))


class StepOutput:
    """Tells what the steps print from what Dagster logs about them, byte by byte as it comes."""

    def __init__(self) -> None:
        self._pending = b""
        self._in_error = False

    def feed(self, output: bytes) -> bytes:
        """What of the output the steps printed."""
        *lines, rest = (self._pending + output).split(b"\n")
        shown = b"".join(line + b"\n" for line in lines if self._is_step(line))
        # a progress bar rewrites its line and may not end it for minutes
        if b"\r" in rest and self._is_step(rest):
            shown, rest = shown + rest, b""
        self._pending = rest
        return shown

    def _is_step(self, line: bytes) -> bool:
        record = _RECORD.match(line)
        if record:
            # its stack trace follows; that of a killed process even where the record is of no error
            self._in_error = record[1] in (b"ERROR", b"CRITICAL") or _CRASH in line
        return not record and not self._in_error and not line.startswith(_NOISE)


@dataclass
class Progress:
    """What the event log has told of a run so far."""

    console: Console
    run_id: str | None = None
    cursor: str | None = None
    started: dict[str, float] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)  # step -> its broken rules, errors only
    failures: dict[str, str] = field(default_factory=dict)

    def poll(self, instance: "DagsterInstance", launch: str) -> None:
        """Read and print what happened since the last time."""
        from dagster import RunsFilter

        if self.run_id is None:
            for run in instance.get_runs(RunsFilter(tags={LAUNCH_TAG: launch}), limit=1):
                self.run_id = run.run_id
                self.console.line(f"run {run.run_id}")
        more = self.run_id is not None
        while more:
            page = instance.get_records_for_run(str(self.run_id), cursor=self.cursor, limit=500)
            for record in page.records:
                if record.event_log_entry.dagster_event:
                    self._tell(record.event_log_entry.dagster_event, record.event_log_entry.timestamp)
            self.cursor, more = page.cursor, page.has_more

    def _tell(self, event: "DagsterEvent", timestamp: float) -> None:
        step = event.step_key or ""
        kind = event.event_type_value
        if kind == "STEP_START":
            self.started[step] = timestamp
            self.console.line(f"  … {step}")
        elif kind in ("STEP_SUCCESS", "STEP_FAILURE"):
            seconds = timestamp - self.started.get(step, timestamp)
            if kind == "STEP_FAILURE":
                rules = self.broken.get(step) if stopped_by_checks(event) else None
                self.failures[step] = "\n  ".join(rules) if rules else failure_reason(event)
            mark = "✓" if kind == "STEP_SUCCESS" else "✗"
            self.console.line(f"  {mark} {step:<40} {seconds:8.1f} s")
        elif kind == "STEP_UP_FOR_RETRY":
            self.console.line(f"  ↻ {step} failed for now and is tried again")
        elif kind == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            if not check.passed:
                where = check.asset_key.to_user_string()
                self.console.line(f"  ! check {check.check_name} on {where}: {check.severity.value}")
                if check.severity.value == "ERROR":
                    self.broken.setdefault(step, []).extend(map(rule_text, broken_rules(event)))
        elif kind == "ENGINE_EVENT" and (event.message or "").startswith(WAITS):
            self.console.line(f"  … {event.message}")
        elif kind in ("PIPELINE_FAILURE", "RUN_FAILURE") and not self.failures and event.message:
            self.failures["the run"] = event.message


def run_job(
    home: Home, environment: Mapping[str, str], *, definitions: str, job: str, stream: IO[bytes]
) -> RunResult:
    """Execute a job of a module of definitions in a process of its own and tell its progress.

    The home's Dagster instance must have been written. Progress and the steps' output go to `stream`. The run ends
    with this process, though that be killed.
    """
    launch = uuid.uuid4().hex
    log = home.logs / "runs" / f"{time.strftime('%Y%m%dT%H%M%S')}-{launch[:8]}.log"
    write_text(log, "")
    argv = [sys.executable, "-m", "orchestration.local.bound", "dagster", "job", "execute"]
    argv += ["-m", definitions, "-j", job, "--tags", json.dumps({LAUNCH_TAG: launch})]
    # `dagster job execute` advises against itself at every run
    advice = "ignore:Function `job_execute_command` is superseded"
    warnings = ",".join(filter(None, [environment.get("PYTHONWARNINGS"), advice]))
    console = Console(stream)
    progress = Progress(console)
    with dagster_instance(home, environment) as instance:  # first: it makes Dagster's tables
        child = subprocess.Popen(
            argv,
            env={**given("run", environment), "PYTHONWARNINGS": warnings},
            cwd=PROJECT,
            stdin=subprocess.PIPE,  # its end tells the run of ours
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        pump = threading.Thread(target=_pass_through, args=(child, log, console), daemon=True)
        pump.start()
        try:
            while child.poll() is None:
                progress.poll(instance, launch)
                time.sleep(POLL_SECONDS)
            progress.poll(instance, launch)
            run = instance.get_run_by_id(progress.run_id) if progress.run_id else None
            if run and not run.is_finished:  # killed: it could not write it down, and nobody would be told
                instance.report_run_failed(run, _ending(child))
        except BaseException:
            end_child(child, first=signal.SIGINT, grace=GRACE_SECONDS)  # so that it is written down as ended
            raise
        finally:
            child.stdin.close()  # type: ignore[union-attr]
    pump.join(timeout=5)
    failures = progress.failures
    if not failures and (child.returncode != 0 or progress.run_id is None):
        failures["the run"] = f"{_ending(child)}:\n{tail(log)}"
    return RunResult(
        run_id=progress.run_id,
        succeeded=not failures,
        failures=failures,
        log=log,
        began=min(progress.started.values(), default=None),
    )


def _ending(child: "subprocess.Popen[bytes]") -> str:
    return KILLED if child.returncode == -signal.SIGKILL else f"ended with exit code {child.returncode}"


def _pass_through(child: "subprocess.Popen[bytes]", log: Path, console: Console) -> None:
    assert child.stdout is not None  # noqa: S101 - it was asked for
    steps = StepOutput()
    with log.open("ab") as file:
        while output := os.read(child.stdout.fileno(), 65_536):
            file.write(output)
            file.flush()
            if shown := steps.feed(output):
                console.raw(shown)
