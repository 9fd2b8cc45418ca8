"""DuckDB within bounds: memory, the folder that it spills to, nothing fetched from anywhere."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from expectations.errors import SettingError
from expectations.storage.memory import VARIABLE


@contextmanager
def open_duckdb(spill: Path | None, memory: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB in UTC that spills to a folder and never fetches extensions.

    Args:
        spill: the folder, one for each connection that is open; what a killed run left there is removed, and so is it
            in the end. None: nowhere, what does not fit fails.
        memory: what it may use, such as "6GB"; None: DuckDB's own limit, 80 % of memory.
    """
    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": "" if spill is None else str(spill),
    }
    if memory is not None:
        config["memory_limit"] = memory
    with ExitStack() as stack:
        if spill is not None:
            shutil.rmtree(spill, ignore_errors=True)
            stack.callback(shutil.rmtree, spill, ignore_errors=True)
        connection = stack.enter_context(duckdb.connect(config=config))
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@contextmanager
def within_memory(table: str, rows: str, memory: str | None) -> Iterator[None]:
    """Turn a lack of memory into an error that names the table, its rows ("123 exposures") and the remedy.

    Raises:
        SettingError: the computation fits neither in memory nor on the disk behind it.
    """
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        why = str(error).strip().partition("\n")[0]
        raise SettingError(
            f"{table}: {rows} do not fit in {memory or 'the memory'} and the disk below the home folder ({why}); "
            f"set {VARIABLE} to more, free disk space, or bring a shorter period"
        ) from error
