"""File locks between processes: the system frees them when their holder ends, however it ends.

`filelock` has none that several processes share on one file of flock.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expectations.errors import TransientError

PAUSE_SECONDS = 0.1


@contextmanager
def locked(path: Path, *, timeout: float, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing.

    Raises:
        TransientError: another process held it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, deadline = open_lock(path), time.monotonic() + timeout
    try:
        while not take(handle, shared=shared):
            if time.monotonic() >= deadline:
                raise TransientError(
                    f"another process has held {path} for {timeout:.0f} s; `fuser {path}` says which: "
                    "wait for it, or end it if it hangs"
                )
            time.sleep(PAUSE_SECONDS)
        yield
    finally:
        os.close(handle)


def open_lock(path: Path) -> int:
    """A descriptor of a file whose lock may be taken; closing it, or the end of the process, frees that."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def take(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock of an open file, if nobody holds it who excludes us; whether it was taken."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of a file; False where there is no file."""
    if not path.exists():
        return False
    handle = open_lock(path)
    try:
        return not take(handle)
    finally:
        os.close(handle)
