"""Programs that outlive the command that started them: start, recognise, stop; ports and file locks.

A process is known by its number and its start time together, so that a number that the system gave
to another program since is never taken for ours. A zombie counts as gone.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from expectations.errors import ServiceError, TransientError
from expectations.storage.atomic import write_json

TOLERANCE = 1.0
"""Seconds by which two readings of one process's start time may differ."""

LOG_BYTES = 20 * 2**20
"""A longer log is put aside (`.old`) when its program starts again."""


def launch(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> psutil.Process:
    """Start a program in a session of its own, with default signals, its output appended to a log.

    Raises:
        ServiceError: the program cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old"))
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_default_signals,  # noqa: PLW1509 - it only calls the kernel
            )
    except OSError as error:
        raise ServiceError(f"cannot start {argv[0]} ({error}); install the project again") from error
    threading.Thread(target=child.wait, daemon=True).start()  # else it stays a zombie when it ends
    return psutil.Process(child.pid)


def _default_signals() -> None:
    """A shell that runs us in the background ignores SIGINT, and the ignoring is inherited."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def is_alive(process: psutil.Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_time(process: psutil.Process) -> float:
    """When a process started, in seconds: since the machine started where the system tells, else Unix time.

    The first does not move when the clock is set.

    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return process.create_time()


def find(pid: int, started: float) -> psutil.Process | None:
    """The live process with that number and start time, or None."""
    try:
        process = psutil.Process(pid)
        same = abs(start_time(process) - started) < TOLERANCE
    except (psutil.NoSuchProcess, ValueError):
        return None
    return process if same and is_alive(process) else None


def write_process_file(path: Path, process: psutil.Process, **facts: object) -> None:
    """Keep a process's identity, and facts about it, for the next command."""
    write_json(path, {"pid": process.pid, "started": start_time(process), **facts})


def read_process_file(path: Path) -> tuple[psutil.Process, dict[str, object]] | None:
    """The live process that a file speaks of and the facts kept with it; None where it is gone."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        process = find(int(facts["pid"]), float(facts["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return (process, facts) if process else None


def stop(process: psutil.Process, *, first: signal.Signals, grace: float) -> None:
    """Ask a process to end, wait, then kill it and what it started.

    Args:
        process: the process; its descendants end with it.
        first: the signal that asks.
        grace: seconds it has before it is killed.

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


def wait_gone(processes: Sequence[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait until processes have ended (zombies have); those still alive after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    left = [process for process in processes if is_alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if is_alive(process)]
    return left


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

    Args:
        port: the port.
        what: what wants it, for the message.
        remedy: how to choose another, for the message.

    Raises:
        ServiceError: the port is taken; says by whom, where the system tells.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServiceError(
                f"{what} cannot have port {port}: {listener(port)} ({error.strerror}); {remedy}"
            ) from error


def listener(port: int) -> str:
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


@contextlib.contextmanager
def locked(path: Path, *, timeout: float, shared: bool = False) -> Iterator[None]:
    """Hold a file lock between processes; a killed holder frees it.

    Raises:
        TransientError: another process held it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TransientError(
                        f"another process has held {path} for {timeout:.0f} s; wait for it to end"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)
