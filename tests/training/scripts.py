"""A script in a Python of its own: what must be killed, limited, or measured as a process."""

import os
import subprocess
import sys

from tests.benchmarks.harness import ROOT


def run_script(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a script from the project's root on one thread; it ends in five minutes, and its output is kept."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
