"""Landing: the same input twice changes nothing, and a run that fails leaves what was there."""

import fcntl
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from expectations.contracts.source import read_source
from expectations.errors import SchemaError, TransientError
from features.sources.__main__ import main
from features.sources.landing import LandedTable, ingest

DECLARED = """
name = "shop"
[tables.items]
location = "items.parquet"
[tables.events]
location = "events.parquet"
[tables.exposures]
location = "exposures.parquet"
"""


def bring(folder: Path, num_events: int = 50) -> Path:
    """Write a shop of two items and so many events; its source.toml."""
    pd.DataFrame({"item_id": ["c1", "c2"], "item_type": "ad"}).to_parquet(folder / "items.parquet")
    days = [f"2024-{1 + i % 3:02d}-{1 + i % 28:02d}" for i in range(num_events)]
    events = pd.DataFrame({"event_id": [f"{i:08d}" for i in range(num_events)], "event_timestamp": days})
    events.assign(user_id="u", event_type="view").to_parquet(folder / "events.parquet")
    exposure = ("e", "u", "c1", "ad", "2024-01-01")
    columns = ["exposure_id", "user_id", "item_id", "scenario", "event_timestamp"]
    pd.DataFrame([exposure], columns=columns).to_parquet(folder / "exposures.parquet")
    path = folder / "source.toml"
    path.write_text(DECLARED)
    return path


def run(path: Path, **options: str) -> dict[str, LandedTable]:
    home = path.parent / "home"
    return ingest(
        read_source(path),
        path,
        tables_dir=home / "tables" / "shop",
        quarantine_dir=home / "quarantine" / "shop",
        **options,
    )


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def command(path: Path, *before: str) -> list[str]:
    arguments = ["--source", str(path), "--home", str(path.parent / "home")]
    return [*before, sys.executable, "-m", "features.sources", *arguments]


def test_the_same_input_twice_changes_nothing(tmp_path: Path) -> None:
    path = bring(tmp_path)
    first = run(path)
    before = snapshot(tmp_path / "home")
    second = run(path)
    assert [table.version for table in first.values()] == [table.version for table in second.values()]
    assert all(table.written for table in first.values())
    assert not any(table.written for table in second.values())
    assert snapshot(tmp_path / "home") == before


def test_the_same_rows_give_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folder = run(bring(tmp_path / name))["events"].folder
        contents.append({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.parquet")})
    assert contents[0] == contents[1]
    assert sorted(contents[0]) == [f"month=2024-0{month}/part-0.parquet" for month in (1, 2, 3)]


def test_only_the_table_that_changed_is_written_and_a_mapping_is_a_change(tmp_path: Path) -> None:
    path = bring(tmp_path)
    run(path)
    bring(tmp_path, num_events=51)
    assert [name for name, table in run(path).items() if table.written] == ["events"]
    path.write_text(DECLARED.replace('"items.parquet"', '"items.parquet"\nconstants = { value = 2.0 }'))
    assert [name for name, table in run(path).items() if table.written] == ["items"]


def test_one_unfit_table_moves_no_pointer(tmp_path: Path) -> None:
    path = bring(tmp_path)
    run(path)
    before = snapshot(tmp_path / "home")
    bring(tmp_path, num_events=60)
    (tmp_path / "exposures.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(SchemaError, match="exposures"):
        run(path)
    assert snapshot(tmp_path / "home") == before


def test_a_table_that_is_no_longer_brought_is_taken_away(tmp_path: Path) -> None:
    path = bring(tmp_path)
    run(path)
    path.write_text(DECLARED.replace('[tables.events]\nlocation = "events.parquet"\n', ""))
    assert list(run(path)) == ["items", "exposures"]
    assert not (tmp_path / "home/tables/shop/events").exists()


def test_an_optional_table_without_rows_is_absent(tmp_path: Path) -> None:
    path = bring(tmp_path, num_events=1)
    run(path)
    pd.read_parquet(tmp_path / "events.parquet")[:0].to_parquet(tmp_path / "events.parquet")
    assert list(run(path)) == ["items", "exposures"]
    assert not (tmp_path / "home/tables/shop/events").exists()


def test_two_ingestions_do_not_meet(tmp_path: Path) -> None:
    path = bring(tmp_path)
    run(path)
    with (tmp_path / "home/tables/shop/.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="another ingestion"):
            run(path)
    run(path)


def test_memory_is_bounded_and_a_wrong_size_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bring(tmp_path)
    assert main(["--source", str(path), "--home", str(tmp_path / "home"), "--memory-limit", "much"]) == 1
    assert "--memory-limit is 'much', which is not a size; write one such as 6GB" in capsys.readouterr().err
    assert run(path, memory_limit="500MB")["events"].num_rows == 50


def test_a_full_disk_leaves_the_old_version(tmp_path: Path) -> None:
    path = bring(tmp_path)
    old = run(path)["events"]
    bring(tmp_path, num_events=200_000)
    limit = 200_000  # bytes a file may have: the system refuses to write more, as on a full disk
    done = subprocess.run(
        command(path),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    pointer = json.loads((tmp_path / "home/tables/shop/events/current.json").read_text())
    assert pointer["version"] == old.version
    assert not list((tmp_path / "home/tables/shop").glob(".ingesting-*"))
    assert run(path)["events"].num_rows == 200_000


@pytest.mark.slow
def test_a_killed_run_leaves_the_old_version_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = bring(tmp_path)
    old = run(path)["events"]
    bring(tmp_path, num_events=800_000)
    tables = tmp_path / "home/tables/shop"
    process = subprocess.Popen(command(path), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tables.glob(".ingesting-*/events/rows/month=*")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((tables / "events/current.json").read_text())["version"] == old.version
    assert list(tables.glob(".ingesting-*"))
    assert run(path)["events"].num_rows == 800_000
    assert not list(tables.glob(".ingesting-*"))


def test_the_command_prints_tables_or_one_plain_message(tmp_path: Path) -> None:
    path = bring(tmp_path)
    done = subprocess.run(command(path), capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["table", "rows", "rejected", "state"],
        ["items", "2", "0", "written"],
        ["events", "50", "0", "written"],
        ["exposures", "1", "0", "written"],
    ]
    (tmp_path / "items.parquet").unlink()
    failed = subprocess.run(command(path), capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("SchemaError: items: ")
    assert "Traceback" not in failed.stderr
