"""What every asset is given: where it works, and what becomes of its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from expectations.errors import RecommenderError, SettingError, TransientError
from expectations.storage.memory import VARIABLE, memory_limit
from features.sources import COMPLETE_JOURNEY
from orchestration.execution.lifeline import end_with_parent
from orchestration.home import DEFAULT, Home
from orchestration.pipeline.workspace import Workspace

POOL = "pipeline"
"""Dagster's pool of all assets. The daemon lets one run of it go at a time, and `orchestration.execution.executor`
one whoever started it: each would see half of what the other writes, and two trainings at once on one machine take
longer than one after the other. A rollback is none of it, so that it waits for no training."""


RETRY_SECONDS = (5, 30, 180)
"""How long a step waits after each failure that a retry may cure: a database that starts again takes a while."""


class WorkspaceResource(dg.ConfigurableResource):
    """The settings of a `Workspace`; an empty recipe or gate is the packaged one, an empty memory its default."""

    home: str = DEFAULT
    source: str = str(COMPLETE_JOURNEY)
    recipe: str = ""
    gate_rules: str = ""
    memory: str = ""
    retention_days: str = ""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Let a step end with its run's process: nobody reads what it does after that."""
        end_with_parent()

    def workspace(self) -> Workspace:
        """What the pipeline's steps take.

        Raises:
            SettingError: the memory is not a size, or the retention no number of days.
        """
        return Workspace(
            home=Home(root=Path(self.home).expanduser().absolute()),
            source_path=Path(self.source).expanduser().absolute(),
            recipe=Path(self.recipe) if self.recipe else None,
            gate_rules=Path(self.gate_rules) if self.gate_rules else None,
            memory=memory_limit({VARIABLE: self.memory}),
            retention_days=_days(self.retention_days),
        )


def _days(text: str) -> int | None:
    if text and (not text.isdigit() or int(text) < 1):
        raise SettingError(f"RECOMMENDER_RETENTION_DAYS is {text!r}; give a whole number of days from 1")
    return int(text) if text else None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn a transient error into a later retry, and any other error of ours into a plain failure without one."""
    try:
        yield
    except TransientError as error:
        attempt = min(dg.OpExecutionContext.get().retry_number, len(RETRY_SECONDS) - 1)
        raise dg.RetryRequested(len(RETRY_SECONDS), RETRY_SECONDS[attempt]) from error
    except RecommenderError as error:
        raise dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False) from error
