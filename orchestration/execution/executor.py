"""Dagster's executor with a turn before it: a run that finds another at work waits, whoever started either."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig

from orchestration.execution.lifeline import end_now
from orchestration.execution.turns import ahead, queued, waiting_text

POLL_SECONDS = 1.0
STATUS_SECONDS = 10.0


def in_turn(queue: Path, executor: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """An executor that executes a run as another does, but when its turn comes.

    Args:
        queue: folder of the runs at work and waiting.
        executor: the other.
    """
    create = executor.executor_creation_fn
    assert create is not None  # noqa: S101 - every executor of Dagster's has one
    return dg.ExecutorDefinition(
        name=executor.name,
        config_schema=executor.config_schema,  # type: ignore[arg-type]
        requirements=executor.get_requirements,
        executor_creation_fn=lambda context: InTurn(queue, create(context)),
        description=executor.description,
    )


class InTurn(dg.Executor):
    """Executes the steps of a run by another executor, when no run that came before it is at work."""

    def __init__(self, queue: Path, steps: dg.Executor) -> None:
        self._queue, self._steps = queue, steps

    @property
    def retries(self) -> RetryMode:
        """Those of the other executor."""
        return self._steps.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """That of the other executor."""
        return self._steps.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        """Wait, which the event log tells once for each run that is waited for, then execute the steps."""
        instance, run_id = plan_context.instance, plan_context.run_id
        with ending_when_finished(instance, run_id), queued(self._queue, run_id) as place:
            told = ""
            while before := ahead(place):
                if before[0].run_id != told:
                    told = before[0].run_id
                    yield DagsterEvent.engine_event(plan_context, waiting_text(before), EngineEventData())
                try:
                    with raise_execution_interrupts():
                        time.sleep(POLL_SECONDS)
                except DagsterExecutionInterruptedError:
                    instance.report_run_canceling(plan_context.dagster_run)  # else it counts as a failure
                    raise
            yield from self._steps.execute(plan_context, execution_plan)


@contextmanager
def ending_when_finished(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """End this process, and its steps, when somebody else writes its run down as finished while the block runs.

    So does Dagster's daemon where a run exceeds its time limit, or does not react when it is cancelled.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(STATUS_SECONDS):
            with suppress(Exception):  # the database may be away for a while
                run = instance.get_run_by_id(run_id)
                if run and run.is_finished and not over.is_set():
                    sys.stderr.write(
                        f"run {run_id} was written down as {run.status.value}: its process ends\n"
                    )
                    end_now()

    threading.Thread(target=watch, name="run status", daemon=True).start()
    try:
        yield
    finally:
        over.set()
