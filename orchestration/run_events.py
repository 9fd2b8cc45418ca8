"""What Dagster's event log tells of a run: how long steps took, which rules broke, why a step failed."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance
    from dagster_shared.error import SerializableErrorInfo

MAX_SAMPLES = 3
"""Offending values that a message shows."""

_MODULE = re.compile(r"^(?:\w+\.)+(?=\w+: )")
"""The module before an error's name."""

KILLED = (
    "the process of this step was ended from outside, most likely by the system because memory ran out; close other "
    "programs, let each step take less (RECOMMENDER_MEMORY, such as 4GB; by default half of what the machine "
    "has), or take a machine with more"
)


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


def broken_rules(event: "DagsterEvent") -> list[Mapping[str, Any]]:
    """The rules that a failed check's event names, as `assets.metadata.failed_rule` wrote them; warnings too."""
    check = event.asset_check_evaluation_data
    rules = None if check.passed else check.metadata.get("failed_rules")
    return list(rules.value) if rules else []  # type: ignore[arg-type]


def rule_text(rule: Mapping[str, Any]) -> str:
    """A broken rule in one line: table, rule, rows, samples, and the sentence with the remedy."""
    rows = f", {rule['rows']:,} rows" if rule["rows"] else ""
    sample = ", ".join(str(value) for value in rule["sample"])
    shown = f", such as {sample}" if sample else ""
    return f"table {rule['table']}, rule {rule['rule']}{rows}{shown}: {rule['message']}"


def stopped_by_checks(event: "DagsterEvent") -> bool:
    """Whether a step failed only because of its blocking checks, which say more than its own message."""
    error = event.step_failure_data.error
    return error is not None and error.cls_name == "DagsterAssetCheckFailedError"


def error_class(event: "DagsterEvent") -> str:
    """The name of the error that was the innermost cause of a step's failure."""
    error = _innermost(event)
    return (error.cls_name if error is not None else None) or ""


def failure_reason(event: "DagsterEvent") -> str:
    """The innermost cause of a step's failure, in its own words, without its stack."""
    if error_class(event) == "ChildProcessCrashException":
        return KILLED
    error = _innermost(event)
    message = error.message.strip() if error is not None else (event.message or "no message")
    return _MODULE.sub("", message)


def _innermost(event: "DagsterEvent") -> "SerializableErrorInfo | None":
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error
