"""Versioned datasets: a reader sees the old version or the new, never a half.

A dataset is a folder of versions and one pointer:

    <dataset>/
    ├── 4f0c…/            a version, named by the fingerprint of what it was made from
    │   └── …             Parquet files, in month=YYYY-MM folders where the table has an event time
    └── current.json      {"version": "4f0c…", …}: replaced atomically when a version is complete

A killed writer leaves at most a temporary folder, which the next writer removes. A version that
exists already is not written again.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from expectations.errors import SchemaError
from expectations.storage.atomic import read_json, write_json

POINTER = "current.json"


def current(dataset: Path) -> dict[str, Any] | None:
    """The pointer of a dataset, or None where nothing has landed."""
    pointer = dataset / POINTER
    return read_json(pointer) if pointer.exists() else None


def current_folder(dataset: Path) -> Path:
    """The folder of a dataset's current version.

    Raises:
        SchemaError: nothing has landed there yet.
    """
    pointer = current(dataset)
    if pointer is None:
        raise SchemaError(f"nothing has landed in {dataset}; run the step that makes {dataset.name}")
    return dataset / str(pointer["version"])


def land(
    dataset: Path,
    version: str,
    write: Callable[[Path], Mapping[str, Any]],
    *,
    keep: int = 2,
) -> tuple[dict[str, Any], bool]:
    """Write a version of a dataset and make it current; do nothing where it is current already.

    Args:
        dataset: the dataset's folder.
        version: fingerprint of everything the version is made from.
        write: fills an empty folder and returns facts to keep in the pointer (row counts …).
        keep: how many versions stay on disk, the current one among them.

    Returns:
        The pointer, and whether anything was written.
    """
    dataset.mkdir(parents=True, exist_ok=True)
    for stale in dataset.glob(".writing-*"):
        shutil.rmtree(stale, ignore_errors=True)
    pointer = current(dataset)
    if pointer is not None and pointer["version"] == version and (dataset / version).is_dir():
        return pointer, False
    folder = Path(tempfile.mkdtemp(dir=dataset, prefix=".writing-"))
    try:
        facts = write(folder)
        target = dataset / version
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    pointer = {"version": version, **facts}
    write_json(dataset / POINTER, pointer)
    versions = [path for path in dataset.iterdir() if path.is_dir() and path.name != version]
    for old in sorted(versions, key=lambda path: path.stat().st_mtime, reverse=True)[keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return pointer, True
