"""Where the orchestrator meets the domain: which failures are worth a retry."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from expectations.errors import RecommenderError, TransientError

MAX_RETRIES = 2
WAIT_SECONDS = 5


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn a transient error into a retry, and any other error of ours into a plain failure without one."""
    try:
        yield
    except TransientError as error:
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=WAIT_SECONDS) from error
    except RecommenderError as error:
        raise dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False) from error
