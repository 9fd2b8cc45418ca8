"""Most logs have a time of their own for each row: what that costs grows with the rows, not with their square."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expectations.contracts.source import Source, TableSource
from expectations.errors import SettingError
from expectations.storage.datasets import land
from expectations.storage.memory import machine_memory, memory_limit
from expectations.suites.engine import within_memory
from features.offline.engine import bounded_engine, open_engine
from tests.features import small_shop
from tests.features.built_shop import build

SOURCE = Source(name="one_item", connector="tables", tables={"exposures": TableSource()})


def log(num_rows: int) -> dict[str, pd.DataFrame]:
    """One item, no events, and exposures at as many times; every second reader is anonymous."""
    rng = np.random.default_rng(0)
    row = np.arange(num_rows)
    exposures = pd.DataFrame(
        {
            "exposure_id": [f"x{n}" for n in row],
            "user_id": [f"u{n % 9973}" if n % 2 else None for n in row],
            "item_id": "only",
            "scenario": "ad",
            "event_timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(row * 61, unit="s"),
            "outcome": (rng.uniform(size=num_rows) < 0.05).astype(float),
        }
    )
    items = pd.DataFrame({"item_id": ["only"], "item_type": "ad", "text": "the one banner"})
    return {"items": items, "exposures": exposures}


def main(num_rows: str, memory: str, home: str) -> None:
    """Build the shop and print the peak of resident memory in MB, above that of the imports."""
    checked = small_shop.land(Path(home) / "checked", log(int(num_rows)), SOURCE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build(SOURCE, checked, Path(home), memory=memory)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{before // 1024} {after // 1024}\n")


@pytest.mark.slow
def test_rows_of_one_item_at_as_many_times_fit_in_little_memory(tmp_path):
    """Feast's own join of these 8,000 rows is 32 million pairs, several gigabytes."""
    command = [sys.executable, "-m", "tests.features.offline.test_memory", "8000", "300MB", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    before, after = map(int, ran.stdout.split())
    assert after < max(before, 400) + 400


def test_what_does_not_fit_names_table_rows_and_remedy(tmp_path):
    with (
        pytest.raises(
            SettingError, match=r"user_history: 123 exposures do not fit in 40MB .*RECOMMENDER_MEMORY"
        ),
        within_memory("user_history", "123 exposures", "40MB"),
    ):
        connection = open_engine(memory="40MB")
        connection.raw_sql(
            "CREATE TABLE wide AS SELECT i, md5(i::VARCHAR) AS m FROM range(9_000_000) AS t(i)"
        )


def test_what_is_spilled_is_gone_with_the_engine(tmp_path):
    with bounded_engine("60MB", tmp_path / "scratch") as connection:
        connection.raw_sql(
            "CREATE TABLE wide AS SELECT i, md5(i::VARCHAR) AS m FROM range(3_000_000) AS t(i)"
        )
        assert list((tmp_path / "scratch").iterdir())
    assert not (tmp_path / "scratch").exists()


def test_what_a_killed_build_spilled_is_gone_at_the_next_start(tmp_path):
    land(tmp_path, "v1", lambda _folder: {})
    (tmp_path / ".writing-killed" / "scratch").mkdir(parents=True)
    _, written = land(tmp_path, "v1", lambda _folder: {})
    assert not written and not (tmp_path / ".writing-killed").exists()


def test_memory_is_what_is_set_or_half_of_what_the_container_has(tmp_path):
    assert memory_limit({"RECOMMENDER_MEMORY": "6GB"}) == "6GB"
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert memory_limit({}, tmp_path) == "512MiB"
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory(tmp_path) > 2**30
    for size in ("much", "6", "6 gigabytes", "-1GB"):
        with pytest.raises(SettingError, match=f"RECOMMENDER_MEMORY is '{size}', which is not a size"):
            memory_limit({"RECOMMENDER_MEMORY": size})


if __name__ == "__main__":
    main(*sys.argv[1:])
