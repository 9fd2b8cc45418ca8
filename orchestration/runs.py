"""Runs in Dagster's books, and those whose process is gone.

A killed machine or `kill -9` leaves a run "started" for ever, and the queue that lets one run go at a time
would wait for it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import psutil

from orchestration.home import Home
from orchestration.instance import DAGSTER_URL
from orchestration.processes import find, start_time

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

LAUNCH_TAG = "recommender/launch"
"""Names a run before Dagster has given it an id."""

PROCESS_TAG = "recommender/process"
"""Number and start time of the process that executes a run."""


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


def process_tag(pid: int) -> dict[str, str]:
    """The tag by which a run's process is found again; none if it has ended already."""
    try:
        return {PROCESS_TAG: f"{pid} {start_time(psutil.Process(pid))}"}
    except psutil.NoSuchProcess:
        return {}


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
        lost = [run for run in runs if _is_lost(run)]
        for run in lost:
            instance.report_run_failed(
                run, "its process is gone (killed, or the machine stopped); run it again"
            )
        return [run.run_id for run in lost]


def _is_lost(run: "DagsterRun") -> bool:
    from dagster._core.storage.tags import GRPC_INFO_TAG

    process = run.tags.get(PROCESS_TAG)
    if process:
        number, started = process.split()
        return find(int(number), float(started)) is None
    return GRPC_INFO_TAG in run.tags
