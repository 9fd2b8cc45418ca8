"""What Dagster's event log tells of a run: how long steps took and why one failed."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance


def step_seconds(instance: "DagsterInstance", run_id: str) -> dict[str, float]:
    """Wall time of the steps of a run that have ended, in the order in which they did."""
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for record in instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event is None or event.step_key is None:
            continue
        if event.event_type_value == "STEP_START":
            started[event.step_key] = record.event_log_entry.timestamp
        elif event.event_type_value == "STEP_SUCCESS":
            seconds[event.step_key] = record.event_log_entry.timestamp - started[event.step_key]
    return seconds


_MODULE = re.compile(r"^(?:\w+\.)+(?=\w+: )")
"""The module before an error's name."""


def failure_reason(event: "DagsterEvent") -> str:
    """The innermost cause of a step's failure, in its own words, without its stack."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    message = error.message.strip() if error is not None else (event.message or "no message")
    return _MODULE.sub("", message)
