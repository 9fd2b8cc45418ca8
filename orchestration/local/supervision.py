"""supervisord as the keeper of a home's services: it outlives the command and starts again what dies.

    <home>/supervisor/supervisord.conf   which programs; no secret: those are in supervisord's environment
    <home>/supervisor/control.sock       0600, where it takes orders; there is no TCP port
    <home>/supervisor/stack.json         what the services were started for: source, ports
    <home>/logs/<program>.log            what a program printed

Own code beside it: the wait for processes that a killed supervisord left behind, known by the address
of its socket in their environment.
"""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from expectations.errors import ServiceError
from expectations.storage.atomic import read_json, write_json, write_text
from orchestration.home import Home
from orchestration.local.instance import PROJECT
from orchestration.local.processes import stop, wait_gone

START_SECONDS = 10
"""A program that ends sooner did not start; one that ends later is started again."""

STOP_SECONDS = 30
SOCKET_BYTES = 90
"""The kernel takes 107 bytes of path; supervisord adds its process number while it binds."""

_HEAD = """[supervisord]
logfile=%(ENV_SUPERVISED_LOGS)s/supervisord.log
pidfile=%(ENV_SUPERVISED_FOLDER)s/supervisord.pid
directory=%(ENV_SUPERVISED_PROJECT)s
nocleanup=true
umask=077
[unix_http_server]
file=%(ENV_SUPERVISED_SOCKET)s
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """[program:{name}]
command=%(ENV_SUPERVISED_COMMAND_{name})s
priority={priority}
directory=%(ENV_SUPERVISED_PROJECT)s
autorestart=true
startsecs={start}
stopwaitsecs={stop}
killasgroup=true
redirect_stderr=true
stdout_logfile=%(ENV_SUPERVISED_OUTPUTS)s/{name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""
"""Paths and commands travel in the environment: in the file, ` #`, ` ;` and `%` would be read as its grammar."""


@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """The supervisord of one home."""

    home: Home

    @property
    def socket(self) -> Path:
        """Where it takes orders; in the system's temporary folder where the home's path is too long."""
        path = self.home.supervisor.resolve() / "control.sock"
        if len(os.fsencode(path)) <= SOCKET_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"recommender-{name}.sock"

    def start(self, programs: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> None:
        """Start supervisord and, in this order, its programs; `stop` ends them from the last to the first.

        Args:
            programs: name -> command line.
            environment: that of supervisord, of which its programs get all that their command lines do not take away.

        Raises:
            ServiceError: supervisord does not start.
        """
        places = {
            "LOGS": str(self.home.logs),
            "OUTPUTS": str(self.home.logs).replace("%", "%%"),  # this one setting is formatted twice
            "FOLDER": str(self.home.supervisor),
            "PROJECT": str(PROJECT),
            "SOCKET": str(self.socket),
        }
        text = _HEAD
        for priority, (name, argv) in enumerate(programs.items(), start=1):
            places[f"COMMAND_{name}"] = shlex.join(argv)
            text += _PROGRAM.format(name=name, priority=priority, start=START_SECONDS, stop=STOP_SECONDS)
        environment = {**environment, **{f"SUPERVISED_{name}": value for name, value in places.items()}}
        file = self.home.supervisor / "supervisord.conf"
        write_text(file, text)
        self.home.logs.mkdir(parents=True, exist_ok=True)
        supervisord = [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)]
        done = subprocess.run(supervisord, env=environment, cwd=PROJECT, capture_output=True, text=True)  # noqa: PLW1510
        if done.returncode:
            raise ServiceError(
                f"supervisord did not start; correct what it says and start again:\n{done.stderr}"
            )

    def states(self) -> dict[str, dict[str, Any]]:
        """What supervisord says of each program (`statename`, `pid` or 0, …); empty where it does not run."""
        try:
            return {state["name"]: state for state in self._rpc().getAllProcessInfo()}
        except (FileNotFoundError, ConnectionError, xmlrpc.client.Fault):
            return {}

    def lives(self, key: str) -> bool:
        """Whether a program runs or is being started."""
        return self.states().get(key, {}).get("statename") in ("STARTING", "RUNNING")

    def facts(self) -> dict[str, Any]:
        """What the running services were started for; empty where none run."""
        return read_json(self.home.supervisor / "stack.json") if self.states() else {}

    def write_facts(self, **facts: object) -> None:
        """Keep what the services are started for."""
        write_json(self.home.supervisor / "stack.json", facts)

    def restart_stopped(self) -> None:
        """Start the programs that were given up or stopped by hand."""
        for name, state in self.states().items():
            if state["statename"] in ("STOPPED", "EXITED", "FATAL"):
                self._rpc().startProcess(name, False)

    def stop(self) -> None:
        """Stop the programs, supervisord, and whatever they have left; nothing where none run."""
        try:
            rpc = self._rpc()
            pid = rpc.getPID()
            programs = len(rpc.getAllProcessInfo())
            rpc.shutdown()
            wait_gone([psutil.Process(pid)], (STOP_SECONDS + 5) * programs)
        except (FileNotFoundError, ConnectionError, psutil.NoSuchProcess):
            pass  # it was killed: what it ran may be there still
        for process in self._left():
            stop(process, first=signal.SIGTERM, grace=STOP_SECONDS)

    def _rpc(self) -> Any:
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def _left(self) -> list[psutil.Process]:
        """Live processes that this home's supervisord, or one of its programs, has started."""
        mark, ours = f"unix://{self.socket}", os.getpid()
        every = psutil.process_iter(["environ"])
        return [
            process
            for process in every
            if (process.info["environ"] or {}).get("SUPERVISOR_SERVER_URL") == mark and process.pid != ours
        ]
