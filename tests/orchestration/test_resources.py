import dagster as dg
import pytest

from expectations.errors import SchemaError, TransientError
from orchestration.resources import translate_errors


def run(error):
    """A run of a step that fails each time; the seconds that it asked to wait for, and whether it succeeded."""
    waits = []

    @dg.op
    def step():
        try:
            with translate_errors():
                raise error
        except dg.RetryRequested as retry:
            waits.append(retry.seconds_to_wait)
            raise dg.RetryRequested(retry.max_retries, seconds_to_wait=0) from retry

    @dg.job
    def job():
        step()

    return waits, job.execute_in_process(raise_on_error=False).success


def test_a_step_waits_longer_after_each_failure_that_a_retry_may_cure():
    waits, succeeded = run(TransientError("the database does not answer"))
    assert waits == [5, 30, 180, 180]  # the fourth attempt is the last
    assert not succeeded


@pytest.mark.parametrize("error", [SchemaError("no such column"), ValueError("a mistake")])
def test_a_step_that_no_retry_cures_is_not_tried_again(error):
    assert run(error) == ([], False)
