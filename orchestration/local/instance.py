"""Dagster's instance: its file, its runs whose process is gone, and the environment of what we start.

Secrets travel in the environment only: `dagster.yaml` names a variable, never a password.
"""

import contextlib
import glob
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from sqlalchemy.engine import URL

from expectations import telemetry
from expectations.errors import SettingError, TransientError
from expectations.storage.atomic import write_text
from features.sources import COMPLETE_JOURNEY
from orchestration.environment import DAGSTER_URL, LEDGER_URL, SOURCE, max_run_seconds
from orchestration.execution.turns import turns
from orchestration.home import VARIABLE, Home
from orchestration.local.postgres import database_url

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRunStatus, RunRecord

PROJECT = Path(__file__).resolve().parents[2]
"""The folder that holds our packages: programs start there, so that they find them."""

LAUNCH_TAG = "recommender/launch"
"""Names a run before Dagster has given it an id. It stands in the command line of the run's process too.

Tags are given at the start only: Dagster rewrites a run at each change of its status, and a tag that is added
at the same moment is lost.
"""

MONITORING_SECONDS = 30
JOIN_SECONDS = 60
"""A run that has no place in the queue this long after its start lost its process."""

DEFAULTS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""The user may set these otherwise: models come from pip or the bundle, so nothing is downloaded."""


def without_patterns(folder: Path) -> Path:
    """A folder as those are told of it who take its path for a pattern: itself, or a link in the temporary folder.

    In a folder with `[`, `*` or `?` in its path, Dagster finds no settings and goes on with SQLite and telemetry, and
    Prometheus' client, which BentoML uses, finds no metrics.
    """
    if glob.escape(str(folder)) == str(folder):
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"recommender-{os.geteuid()}-{name}"


def _make_link(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    link = without_patterns(folder)
    if link == folder:
        return
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    if not (link.is_symlink() and link.lstat().st_uid == os.geteuid() and link.readlink() == folder):
        raise SettingError(
            f"{link} should lead to {folder} and is something else; remove it, or choose a RECOMMENDER_HOME "
            "without [ ] * ? in its path"
        )


def write_instance(home: Home, environ: Mapping[str, str]) -> Path:
    """Close the home to other users, and write its DAGSTER_HOME's `dagster.yaml`, as JSON, which YAML contains.

    Raises:
        SettingError: the time that a run may take is set wrongly.
    """
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.root.chmod(0o700)
    settings = {
        "storage": {"postgres": {"postgres_url": {"env": DAGSTER_URL}}},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "run_coordinator": {"module": "dagster", "class": "QueuedRunCoordinator"},
        "concurrency": {
            "pools": {"granularity": "run", "default_limit": 1}
        },  # `orchestration.resources.POOL`
        "run_monitoring": {
            "enabled": True,
            "start_timeout_seconds": 300,
            "max_runtime_seconds": max_run_seconds(environ),
            "poll_interval_seconds": MONITORING_SECONDS,
        },
        "compute_logs": {
            "module": "dagster._core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(home.logs / "steps")},
        },
        "schedules": {"use_threads": True, "num_workers": 2},
        "sensors": {"use_threads": True, "num_workers": 2},
        "retention": {
            "schedule": {"purge_after_days": 90},
            "sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}},
            "auto_materialize": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}},
        },
    }
    path = home.dagster / "dagster.yaml"
    write_text(path, json.dumps(settings, indent=2) + "\n")
    for folder in (home.dagster, home.bentoml):
        _make_link(folder)
    return path


def source_file(name: str | None) -> Path:
    """The absolute path of a `source.toml`; Complete Journey where none is named.

    Raises:
        SettingError: there is no such file.
    """
    path = Path(name).expanduser().absolute() if name else COMPLETE_JOURNEY
    path = path / "source.toml" if path.is_dir() else path
    if not path.is_file():
        raise SettingError(f"there is no source file {path}; give the path of your source.toml")
    return path


def child_environment(
    home: Home, databases: Mapping[str, URL], source: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment of all programs that we start: ours, and where everything is.

    The settings of `environ` win over `DEFAULTS`; the source's path is absolute. Which program is given what of it
    says `orchestration.environment`.
    """
    return {
        **DEFAULTS,
        **environ,
        **telemetry.OFF,
        VARIABLE: str(home.root),
        SOURCE: str(source),
        DAGSTER_URL: database_url(databases["dagster"]),
        LEDGER_URL: database_url(databases["ledger"]),
        "DAGSTER_HOME": str(without_patterns(home.dagster)),
        "BENTOML_HOME": str(without_patterns(home.bentoml)),
    }


@contextlib.contextmanager
def dagster_instance(home: Home, environment: Mapping[str, str]) -> "Iterator[DagsterInstance]":
    """Dagster's instance of a home; its address is in our own environment only inside the block."""
    from dagster import DagsterInstance

    before = os.environ.get(DAGSTER_URL)
    os.environ[DAGSTER_URL] = environment[DAGSTER_URL]
    try:
        with DagsterInstance.from_config(str(without_patterns(home.dagster))) as instance:
            yield instance
    finally:
        os.environ.pop(DAGSTER_URL)
        if before is not None:
            os.environ[DAGSTER_URL] = before


def require_no_run(home: Home, environment: Mapping[str, str]) -> None:
    """Refuse to go on while a run is in progress.

    Raises:
        TransientError: one is.
    """
    from dagster import RunsFilter

    with dagster_instance(home, environment) as instance:
        runs = instance.get_runs(RunsFilter(statuses=_in_progress()))
    if runs:
        raise TransientError(f"run {runs[0].run_id} is in progress; wait for it or stop it, then try again")


def _in_progress() -> "list[DagsterRunStatus]":
    from dagster import DagsterRunStatus

    return [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def fail_lost_runs(home: Home, environment: Mapping[str, str], *, daemon: bool = False) -> list[str]:
    """Mark the runs that lost their process as failed, and return their ids.

    A killed machine or `kill -9` leaves a run "started" for ever, and Dagster's queue, which lets one run go at a
    time, would wait for it.

    Args:
        home: whose runs.
        environment: that of programs that we start.
        daemon: whether this home's daemon or UI runs: what they launched is left to them.
    """
    from dagster import RunsFilter

    with dagster_instance(home, environment) as instance:
        records = instance.get_run_records(RunsFilter(statuses=_in_progress()))
        command_lines = _command_lines()
        living = {turn.run_id for turn in turns(home.queue)}
        lost = [
            record.dagster_run
            for record in records
            if record.dagster_run.run_id not in living and _is_lost(record, command_lines, daemon)
        ]
        for run in lost:
            instance.report_run_failed(
                run, "its process is gone (killed, or the machine stopped); run it again"
            )
        return [run.run_id for run in lost]


def _is_lost(record: "RunRecord", command_lines: Sequence[str], daemon: bool) -> bool:
    """Whether a run that has no place in the queue lost its process, by who started it."""
    from dagster._core.storage.tags import GRPC_INFO_TAG

    run = record.dagster_run
    if GRPC_INFO_TAG in run.tags:
        return not daemon
    if launch := run.tags.get(LAUNCH_TAG):
        return not any(launch in line for line in command_lines)
    # a plain `dagster job execute`: it takes its place as soon as it has begun
    takes_turns = bool(run.run_op_concurrency and run.run_op_concurrency.all_pools)
    return takes_turns and (record.start_time or math.inf) < time.time() - JOIN_SECONDS


def _command_lines() -> list[str]:
    """The command lines of all live processes; that of a zombie is empty."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines
