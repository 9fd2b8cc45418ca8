"""Runs in Dagster's books, and those whose process is gone.

A killed machine or `kill -9` leaves a run "started" for ever, and the queue that lets one run go at a time
would wait for it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import psutil

from orchestration.home import Home
from orchestration.local.instance import DAGSTER_URL

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

LAUNCH_TAG = "recommender/launch"
"""Names a run before Dagster has given it an id. It stands in the command line of the run's process too.

Tags are given at the start only: Dagster rewrites a run at each change of its status, and a tag that is added
at the same moment is lost.
"""


@contextlib.contextmanager
def dagster_instance(home: Home, environment: Mapping[str, str]) -> "Iterator[DagsterInstance]":
    """Dagster's instance of a home; its address is in our own environment only inside the block."""
    from dagster import DagsterInstance

    before = os.environ.get(DAGSTER_URL)
    os.environ[DAGSTER_URL] = environment[DAGSTER_URL]
    try:
        with DagsterInstance.from_config(str(home.dagster)) as instance:
            yield instance
    finally:
        os.environ.pop(DAGSTER_URL)
        if before is not None:
            os.environ[DAGSTER_URL] = before


def fail_lost_runs(home: Home, environment: Mapping[str, str]) -> list[str]:
    """Mark the runs that lost their process as failed; call it while neither UI nor daemon runs.

    A run that somebody started with a plain `dagster job execute` says of itself neither who executes it
    nor that a daemon launched it, and is left alone.

    Returns:
        The runs' ids.
    """
    from dagster import DagsterRunStatus, RunsFilter

    in_progress = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    with dagster_instance(home, environment) as instance:
        runs = instance.get_runs(RunsFilter(statuses=in_progress))
        command_lines = _command_lines()
        lost = [run for run in runs if _is_lost(run, command_lines)]
        for run in lost:
            instance.report_run_failed(
                run, "its process is gone (killed, or the machine stopped); run it again"
            )
        return [run.run_id for run in lost]


def _is_lost(run: "DagsterRun", command_lines: Sequence[str]) -> bool:
    from dagster._core.storage.tags import GRPC_INFO_TAG

    launch = run.tags.get(LAUNCH_TAG)
    if launch:
        return not any(launch in line for line in command_lines)
    return GRPC_INFO_TAG in run.tags


def _command_lines() -> list[str]:
    """The command lines of all live processes; that of a zombie is empty."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines
