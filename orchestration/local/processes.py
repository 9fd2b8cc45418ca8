"""Processes and ports. A zombie counts as gone."""

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from expectations.errors import ServiceError

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def start_child(argv: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program that is asked to end (SIGTERM) when we end, however that is; on Linux, where the kernel does it.

    Args:
        argv: its command line.
        options: those of `subprocess.Popen`.
    """
    tie = _end_with_parent if sys.platform == "linux" else None
    return subprocess.Popen(list(argv), preexec_fn=tie, **options)  # noqa: PLW1509 — one system call, no lock


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def is_alive(process: psutil.Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(process: psutil.Process, *, first: signal.Signals, grace: float) -> None:
    """Ask a process by its `first` signal to end, wait `grace` seconds, then kill it and what it started.

    Raises:
        ServiceError: it is still there after it was killed.
    """
    try:
        family = [process, *process.children(recursive=True)]
        process.send_signal(first)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise ServiceError(f"process {process.pid} belongs to another user; stop it as that user") from error
    stubborn = family if wait_gone([process], grace) else wait_gone(family, 3)
    for survivor in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    left = wait_gone(stubborn, 10)
    if left:
        raise ServiceError(f"process {left[0].pid} does not end; look at it with `ps -fp {left[0].pid}`")


def end_child(child: "subprocess.Popen[bytes]", *, first: signal.Signals, grace: float) -> None:
    """End a child, and all that it started, while an error or a signal ends us.

    After Ctrl-C, which the terminal tells the child too, it has `grace` seconds to end by itself.
    """
    process = psutil.Process(child.pid)
    family = process.children(recursive=True)
    if sys.exc_info()[0] is KeyboardInterrupt:
        wait_gone([process], grace)
    stop(process, first=first, grace=grace)
    for left in wait_gone(family, 3):
        stop(left, first=signal.SIGKILL, grace=1)
    child.wait()


def wait_until(condition: Callable[[], object], timeout: float, *, pause: float = 0.05) -> bool:
    """Wait until a condition holds; False where it does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True


def wait_gone(processes: Sequence[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until processes have ended (zombies have); those still alive after `timeout` seconds."""
    wait_until(lambda: not any(map(is_alive, processes)), timeout)
    return [process for process in processes if is_alive(process)]


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def require_free_port(port: int, *, what: str, remedy: str) -> None:
    """Make sure that nothing listens on a port of 127.0.0.1.

    Raises:
        ServiceError: `what` cannot have it; says who has it, where the system tells, and the `remedy`.
    """
    try:
        _bind(port)
    except OSError as error:
        raise ServiceError(
            f"{what} cannot have port {port}: {_listener(port)} ({error.strerror}); {remedy}"
        ) from error


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of 127.0.0.1."""
    with contextlib.suppress(OSError):
        return _bind(port) == port
    return False


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on at this moment."""
    return _bind(0)


def _bind(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])


def _listener(port: int) -> str:
    """Who listens on a TCP port of this machine, in words."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,):
                if connection.pid:
                    return f"{psutil.Process(connection.pid).name()} (process {connection.pid}) has it"
                break
    except psutil.Error:
        pass
    return "another program has it"
