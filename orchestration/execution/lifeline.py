"""Processes that do not outlive who started them: what a killed one leaves would go on writing beside the next run.

A process waits in a thread for the end of a pipe whose other end its parent holds: the system closes that however
the parent ends.
"""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait

import psutil


def end_with_pipe(descriptor: int, *, grace: float) -> None:
    """End this process, and all that it started, when the other end of a pipe is closed.

    Args:
        descriptor: the end of it that we have, on which nothing comes.
        grace: seconds that the process has to end by itself, after SIGINT; 0: it is killed at once.
    """

    def end() -> None:
        wait([descriptor])
        if grace:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(grace)
        end_now()

    threading.Thread(target=end, name="lifeline", daemon=True).start()


def end_with_parent() -> None:
    """End this process, and all that it started, with the one that started it by `multiprocessing`, if one did."""
    if parent := multiprocessing.parent_process():
        end_with_pipe(parent.sentinel, grace=0)


def end_now() -> None:
    """Kill all that this process started, then end it."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(1)


def end_forkserver() -> None:
    """Kill what this process forked its steps from: it takes as long to end as to import what steps need."""
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if "multiprocessing.forkserver" in " ".join(process.cmdline()):
                process.kill()
