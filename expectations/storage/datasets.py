"""Versioned datasets: a reader sees the old version or the new, never a half.

A dataset is a folder of versions and one pointer:

    <dataset>/
    ├── 4f0c…/            a version, named by the fingerprint of what it was made from
    │   └── …             Parquet files, in month=YYYY-MM folders where the table has an event time
    ├── .writing-…/       a version that is being written
    ├── .<folder>.lock    held by who writes that folder, and by each process that reads it
    ├── .lock             held for a moment by who joins or leaves
    └── current.json      {"version": "4f0c…", …}: replaced atomically when a version is complete

Several processes may write at the same time; the last to end is current. A folder is removed only while
nobody holds its lock: a killed writer's by the next writer, an old version by the next writer after its last
reader has ended. A process counts as a reader of what `current_folder` gave it until it ends, as steps do.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from expectations.errors import SchemaError
from expectations.storage.atomic import read_json, write_json
from expectations.storage.locks import is_held, locked, open_lock, take

POINTER = "current.json"
LOCK_SECONDS = 120
"""Old versions are removed under the lock, which takes a while on a slow disk."""

_WRITING = ".writing-"
_read: dict[Path, int] = {}
"""The versions that this process reads, each with the open file whose lock says so."""


def current(dataset: Path) -> dict[str, Any] | None:
    """The pointer of a dataset, or None where nothing has landed."""
    pointer = dataset / POINTER
    return read_json(pointer) if pointer.exists() else None


def current_folder(dataset: Path) -> Path:
    """The folder of a dataset's current version, which stays as long as this process lives.

    Raises:
        SchemaError: nothing has landed there yet.
        TransientError: another process held the dataset's lock for too long.
    """
    if current(dataset) is not None:
        with _alone(dataset):
            pointer = current(dataset)
            if pointer is not None:
                folder = dataset / str(pointer["version"])
                if folder not in _read:
                    _read[folder] = open_lock(_lock(folder))
                    take(_read[folder], shared=True)
                return folder
    raise SchemaError(f"nothing has landed in {dataset}; run the step that makes {dataset.name}")


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
        keep: how many versions stay on disk, the current one among them; those that are read stay too.

    Returns:
        The pointer, and whether anything was written.

    Raises:
        TransientError: another process held the dataset's lock for too long.
    """
    dataset.mkdir(parents=True, exist_ok=True)
    with _alone(dataset):
        for folder in dataset.glob(f"{_WRITING}*"):
            _remove(folder)
        pointer = current(dataset)
        if pointer is not None and pointer["version"] == version and (dataset / version).is_dir():
            return pointer, False
        folder = Path(tempfile.mkdtemp(dir=dataset, prefix=_WRITING))
        lock = open_lock(_lock(folder))
        take(lock)
    try:
        facts = write(folder)
        with _alone(dataset):
            pointer = {"version": version, **facts}
            target = dataset / version
            if _remove(target):  # else it is read, and made from the same
                folder.rename(target)
            write_json(dataset / POINTER, pointer)
            versions = [path for path in _folders(dataset) if path != target and path.name[0] != "."]
            for old in sorted(versions, key=lambda path: path.stat().st_mtime, reverse=True)[keep - 1 :]:
                _remove(old)
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)
        _lock(folder).unlink(missing_ok=True)
    return pointer, True


def remove(dataset: Path) -> None:
    """Take a dataset away, its pointer first; the versions that are read stay until the next time.

    Raises:
        TransientError: another process held the dataset's lock for too long.
    """
    if not dataset.is_dir():
        return
    with _alone(dataset):
        (dataset / POINTER).unlink(missing_ok=True)
        left = [folder for folder in _folders(dataset) if not _remove(folder)]
        if not left:
            shutil.rmtree(dataset, ignore_errors=True)


def _remove(folder: Path) -> bool:
    """Remove a folder that nobody writes or reads, under the dataset's lock; whether it is gone."""
    if is_held(_lock(folder)):
        return False
    if folder.exists():
        # under another name first: a half of a version must not look like one
        doomed = folder.with_name(f"{_WRITING}{folder.name.removeprefix(_WRITING)}")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    _lock(folder).unlink(missing_ok=True)
    return True


def _folders(dataset: Path) -> list[Path]:
    return [path for path in dataset.iterdir() if path.is_dir()]


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def _alone(dataset: Path) -> Iterator[None]:
    with locked(dataset / ".lock", timeout=LOCK_SECONDS):
        yield
