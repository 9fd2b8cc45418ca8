"""Places in the queue, each of a process of its own, as those of runs are."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from orchestration.execution.turns import ahead, queued, turns, waiting_text

CODE = """
import sys, time
from pathlib import Path
from orchestration.execution.turns import ahead, queued

with queued(Path(sys.argv[1]), sys.argv[2]) as file:
    print("joined", flush=True)
    while ahead(file):
        time.sleep(0.05)
    print("at work", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def join(tmp_path):
    started = []

    def begin(run_id):
        argv = [sys.executable, "-c", CODE, str(tmp_path), run_id]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "joined\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_runs_go_one_after_the_other_in_the_order_in_which_they_came(tmp_path, join):
    first, second, third = (join(name) for name in ("run-1", "run-2", "run-3"))
    assert first.stdout.readline() == "at work\n"
    assert [turn.run_id for turn in turns(tmp_path)] == ["run-1", "run-2", "run-3"]
    with queued(tmp_path, "run-4") as file:
        before = ahead(file)
        assert datetime.now(UTC) - before[0].since < timedelta(minutes=1)
        assert waiting_text(before).startswith("waits for run run-1, at work since ")
        assert waiting_text(before).endswith(" UTC, and 2 more before this one")
    second.kill()  # it waits, and leaves the queue
    second.wait()
    first.kill()
    assert third.stdout.readline() == "at work\n"
    assert [turn.run_id for turn in turns(tmp_path)] == ["run-3"]
    third.communicate("\n", timeout=60)
    assert turns(tmp_path) == []
    with queued(tmp_path, "run-5") as file:
        assert ahead(file) == []
        assert [path.name for path in tmp_path.glob("*.run")] == ["00000001.run"]
