"""Programs that a command has started end with it, though it was killed: real processes and PostgreSQL."""

import contextlib
import os
import subprocess
import sys
import textwrap

import psutil
import pytest

from orchestration.local.instance import PROJECT
from orchestration.local.processes import is_alive, wait_until


def killed_while_it_runs(argv, environ, log):
    """What a command had started, its marked child first, when it was killed while it ran."""
    with log.open("wb") as out:
        command = subprocess.Popen(argv, env=environ, cwd=PROJECT, stdout=out, stderr=out)
    parent = psutil.Process(command.pid)

    def marked():
        found = []
        for process in parent.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [process] if "MARKED=1" in " ".join(process.cmdline()) else []
        return found

    assert wait_until(lambda: command.poll() is None and marked(), 60), log.read_text()
    children = marked()
    command.kill()
    command.wait()
    return children


def test_a_service_for_a_block_ends_with_a_killed_command(home, tmp_path):
    code = """
        import os, sys
        from pathlib import Path
        from orchestration.home import Home
        from orchestration.local.stack import Service, serving

        argv = [sys.executable, "-c", "MARKED=1; import time; time.sleep(60)"]
        service = Service(key="web", title="Web", program="api", argv=argv, is_ready=lambda: False)
        with serving(service, Home(root=Path(sys.argv[1])), os.environ):
            pass
    """
    argv = [sys.executable, "-c", textwrap.dedent(code), str(home.root)]
    (child,) = killed_while_it_runs(argv, os.environ, tmp_path / "log")
    assert wait_until(lambda: not is_alive(child), 10)


@pytest.mark.slow
def test_a_program_of_exec_ends_with_a_killed_command(home, postgres, tmp_path):
    program = [sys.executable, "-c", "MARKED=1; import time; time.sleep(60)"]
    argv = [sys.executable, "-m", "orchestration", "exec", *program]
    environ = {
        **os.environ,
        "RECOMMENDER_HOME": str(home.root),
        "RECOMMENDER_POSTGRES_PORT": str(postgres.port),
    }
    children = killed_while_it_runs(argv, environ, tmp_path / "log")
    assert wait_until(lambda: not any(map(is_alive, children)), 10)
