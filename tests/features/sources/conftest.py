"""What tests of connectors share: a DuckDB, and a column of texts in it."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from expectations.suites.engine import open_duckdb


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duckdb(tmp_path / "spill") as connection:
        yield connection


def column(con: duckdb.DuckDBPyConnection, values: list[str]) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE told AS SELECT unnest(?) AS t", [values])
