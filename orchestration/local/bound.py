"""`python -m orchestration.local.bound MODULE …`: `python -m MODULE …` that ends with the process that started it.

That process holds the other end of the pipe that is our standard input.
"""

import runpy
import sys

from orchestration.execution.lifeline import end_forkserver, end_with_pipe

GRACE_SECONDS = 5
"""In which a run writes down that it was cancelled."""

if __name__ == "__main__":
    end_with_pipe(sys.stdin.fileno(), grace=GRACE_SECONDS)
    sys.argv = sys.argv[1:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        end_forkserver()
