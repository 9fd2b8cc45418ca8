"""One run of a home at a time, whoever started it; the others wait in the order in which they came.

    <home>/queue/
    ├── .lock            held for a moment by who joins or looks
    ├── 00000007.run     the run at work: its id; changed when it began
    └── 00000008.run     the next one

Each run's process holds the lock of its file, which the system frees however the process ends.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from expectations.storage.locks import is_held, locked, open_lock, take

LOCK_SECONDS = 60
WAITS = "waits for run "
"""How the line begins that says so."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A run that is at work or waits for it.

    Attributes:
        file: its file; the first in order is at work.
        run_id: Dagster's id.
        since: when it came, or if it is at work, began; UTC.
    """

    file: Path
    run_id: str
    since: datetime


def turns(folder: Path) -> list[Turn]:
    """The run at work and those that wait, in order; those whose process is gone are none of them."""
    with locked(folder / ".lock", timeout=LOCK_SECONDS):
        return _turns(folder)


@contextmanager
def queued(folder: Path, run_id: str) -> Iterator[Path]:
    """A run's place in the queue while the block runs: its file."""
    with locked(folder / ".lock", timeout=LOCK_SECONDS):
        living = [turn.file for turn in _turns(folder)]
        for file in set(folder.glob("*.run")).difference(living):
            file.unlink()
        number = int(living[-1].stem) + 1 if living else 1
        file = folder / f"{number:08d}.run"
        lock = open_lock(file)
        take(lock)
        file.write_text(run_id, encoding="utf-8")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
        os.close(lock)


def ahead(file: Path) -> list[Turn]:
    """The runs before that of a file; where there are none, it is at work from now on."""
    before = [turn for turn in turns(file.parent) if turn.file < file]
    if not before:
        os.utime(file)
    return before


def waiting_text(before: list[Turn]) -> str:
    """Which run is waited for, and since when it is at work, in a line."""
    first, others = before[0], len(before) - 1
    more = f", and {others} more before this one" if others else ""
    return f"{WAITS}{first.run_id[:8]}, at work since {first.since:%d %b %H:%M} UTC{more}"


def _turns(folder: Path) -> list[Turn]:
    return [
        Turn(
            file=file,
            run_id=file.read_text(encoding="utf-8"),
            since=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        )
        for file in sorted(folder.glob("*.run"))
        if is_held(file)
    ]
