"""Writers and readers of one dataset, each a process of its own, as two runs of one home would be."""

import subprocess
import sys
import textwrap

import pytest

from expectations.storage.datasets import current, current_folder, land, remove

PRELUDE = """
import sys
from pathlib import Path
from expectations.storage.datasets import current_folder, land

dataset, version = Path(sys.argv[1]), sys.argv[2]

def say(text):
    print(text, flush=True)
"""
WRITER = """
def write(folder):
    (folder / "rows.txt").write_text(version)
    say("writing")
    sys.stdin.readline()
    return {"rows": 1}

say(land(dataset, version, write))
"""
READER = """
folder = current_folder(dataset)
say("reading")
sys.stdin.readline()
say((folder / "rows.txt").read_text())
"""


@pytest.fixture
def start(tmp_path):
    """Start a program on the dataset and wait for its first line; those that are left are killed."""
    started = []

    def begin(code, version="-"):
        argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(tmp_path / "rows"), version]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline().strip() in ("writing", "reading")
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def finish(process):
    """Let a program go on; what it said last."""
    told, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    return told.strip()


def land_at_once(dataset, version):
    def write(folder):
        (folder / "rows.txt").write_text(version)
        return {}

    return land(dataset, version, write)


def versions(dataset):
    return sorted(path.name for path in dataset.iterdir() if path.is_dir())


@pytest.mark.parametrize("second", ["v1", "v2"])
def test_two_writers_at_once_both_end_right(tmp_path, start, second):
    dataset = tmp_path / "rows"
    first, other = start(WRITER, "v1"), start(WRITER, second)
    assert finish(first) == "({'version': 'v1', 'rows': 1}, True)"
    assert finish(other) == f"({{'version': '{second}', 'rows': 1}}, True)"
    assert current(dataset) == {"version": second, "rows": 1}
    assert (current_folder(dataset) / "rows.txt").read_text() == second
    assert versions(dataset) == sorted({"v1", second})


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, start):
    dataset = tmp_path / "rows"
    killed, living = start(WRITER, "v1"), start(WRITER, "v2")
    killed.kill()
    killed.wait()
    land_at_once(dataset, "v3")
    assert len(versions(dataset)) == 2  # v3, and what the living one writes
    assert finish(living) == "({'version': 'v2', 'rows': 1}, True)"
    assert versions(dataset) == ["v2", "v3"]
    assert not [path.name for path in dataset.iterdir() if ".writing-" in path.name]


def test_a_version_that_a_process_reads_stays_until_that_ends(tmp_path, start):
    dataset = tmp_path / "rows"
    land_at_once(dataset, "v1")
    reader = start(READER)
    for version in ("v2", "v3", "v4"):
        land_at_once(dataset, version)
    assert versions(dataset) == ["v1", "v3", "v4"]
    assert finish(reader) == "v1"
    land_at_once(dataset, "v5")
    assert versions(dataset) == ["v4", "v5"]
    assert not (dataset / ".v1.lock").exists()


def test_a_dataset_that_is_taken_away_leaves_what_is_read(tmp_path, start):
    dataset = tmp_path / "rows"
    land_at_once(dataset, "v1")
    reader = start(READER)
    land_at_once(dataset, "v2")
    remove(dataset)
    assert current(dataset) is None
    assert versions(dataset) == ["v1"]
    assert finish(reader) == "v1"
    remove(dataset)
    assert not dataset.exists()
    remove(dataset)
