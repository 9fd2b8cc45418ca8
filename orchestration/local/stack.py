"""The services of one home: PostgreSQL, Dagster's UI and daemon, the recommendation API.

Each is a process of its own that outlives the command. `<home>/logs/<key>.json` says which process it is,
`<home>/logs/<key>.log` what it printed.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from expectations.errors import ServiceError, TransientError
from orchestration.home import Home
from orchestration.local.instance import PROJECT, child_environment, write_instance
from orchestration.local.postgres import PostgresSettings, close_postgres, open_postgres
from orchestration.local.postgres_server import Server
from orchestration.local.processes import (
    is_alive,
    launch,
    locked,
    read_process_file,
    require_free_port,
    stop,
    tail,
    write_process_file,
)
from orchestration.local.runs import fail_lost_runs

DEFINITIONS = "orchestration.definitions"
SERVICE = "serving.api.service:Recommender"
READY_SECONDS = 180
GRACE_SECONDS = 20

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports on 127.0.0.1 of Dagster's UI and of the recommendation API."""

    ui: int = 3000
    api: int = 3001


@dataclass(frozen=True, kw_only=True)
class Service:
    """One program that runs in the background.

    Attributes:
        key: name of its process file and log.
        title: name for people.
        argv: how it is started.
        is_ready: whether it does its work yet.
        port: where it listens, if it does.
        option: the option that chooses another port.
    """

    key: str
    title: str
    argv: Sequence[str]
    is_ready: Callable[[], bool]
    port: int | None = None
    option: str = ""

    def files(self, home: Home) -> tuple[Path, Path]:
        """Its process file and its log."""
        return home.logs / f"{self.key}.json", home.logs / f"{self.key}.log"


def answers(url: str) -> bool:
    """Whether a GET of an address of this machine (no proxy) is answered with success."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def daemons_healthy(ui_port: int) -> bool:
    """Whether Dagster's UI says that the daemon keeps its schedules, sensors and queue."""
    query = "{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }"
    try:
        url = f"http://127.0.0.1:{ui_port}/graphql"
        reply = httpx.post(url, json={"query": query}, timeout=5, trust_env=False)
        daemons = reply.json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
    return all(daemon["healthy"] for daemon in daemons if daemon["required"])


def api_service(port: int, service: str = SERVICE) -> Service:
    """The recommendation API."""
    serve = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1"]
    return Service(
        key="api",
        title="recommendation API",
        argv=[*serve, "--port", str(port), "--working-dir", str(PROJECT)],
        is_ready=lambda: answers(f"http://127.0.0.1:{port}/healthz"),
        port=port,
        option="--port-api",
    )


def dagster_services(port: int, definitions: str = DEFINITIONS) -> tuple[Service, Service]:
    """Dagster's UI and its daemon, which starts scheduled and queued runs."""
    ui = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    daemon = [sys.executable, "-m", "dagster._daemon", "run"]
    return (
        Service(
            key="ui",
            title="Dagster UI",
            argv=[*ui, "-m", definitions],
            is_ready=lambda: answers(f"http://127.0.0.1:{port}/server_info"),
            port=port,
            option="--port-ui",
        ),
        Service(
            key="daemon",
            title="Dagster daemon",
            argv=[*daemon, "-m", definitions],
            is_ready=lambda: daemons_healthy(port),
        ),
    )


def process_of(service: Service, home: Home) -> tuple[psutil.Process, dict[str, object]] | None:
    """The live process of a service and the facts kept with it."""
    return read_process_file(service.files(home)[0])


def start(service: Service, home: Home, environment: Mapping[str, str], **facts: object) -> psutil.Process:
    """Start a service without waiting for it.

    Raises:
        ServiceError: its port is taken, or the program cannot be started.
    """
    if service.port is not None:
        remedy = f"stop that program, or choose another port with {service.option}"
        require_free_port(service.port, what=service.title, remedy=remedy)
    file, log = service.files(home)
    process = launch(service.argv, env=environment, cwd=PROJECT, log=log)
    write_process_file(file, process, port=service.port, **facts)
    return process


def wait_ready(service: Service, home: Home, process: psutil.Process) -> None:
    """Wait until a service does its work.

    Raises:
        ServiceError: it ended, or is not ready in time; shows the end of its log.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not service.is_ready():
        if not is_alive(process) or time.monotonic() > deadline:
            log = service.files(home)[1]
            what = f"was not ready in {READY_SECONDS} s" if is_alive(process) else "ended at once"
            raise ServiceError(
                f"{service.title} {what}; correct what its log says and start again\n{log}:\n{tail(log)}"
            )
        time.sleep(0.3)


def halt(service: Service, home: Home) -> bool:
    """Stop a service; whether it ran."""
    there = process_of(service, home)
    if there:
        stop(there[0], first=signal.SIGTERM, grace=GRACE_SECONDS)
    service.files(home)[0].unlink(missing_ok=True)
    return there is not None


@contextlib.contextmanager
def serving(service: Service, home: Home, environment: Mapping[str, str]) -> Iterator[str]:
    """A service's address while the block runs; it is stopped after the block if it was started for it."""
    there = process_of(service, home)
    if there:
        wait_ready(service, home, there[0])
        yield f"http://127.0.0.1:{there[1]['port']}"
        return
    try:
        wait_ready(service, home, start(service, home, environment))
        yield f"http://127.0.0.1:{service.port}"
    finally:
        halt(service, home)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All services of one home.

    Attributes:
        home: the home folder.
        postgres: where PostgreSQL is.
        services: what is started beside it, in this order.
    """

    home: Home
    postgres: PostgresSettings
    services: Sequence[Service]

    def up(self, source: Path, environ: Mapping[str, str], say: Say) -> None:
        """Start what does not run yet and wait until all of it works; what it started ends if one fails.

        Args:
            source: the `source.toml` that runs from the UI use.
            environ: the environment that the services' environments build on.
            say: takes one line for the user.

        Raises:
            ServiceError: a service did not start.
        """
        with self._lock():
            self._require_same_source(source)
            fresh: list[Service] = []
            had_postgres = Server(home=self.home, port=self.postgres.port).process() is not None
            try:
                address = open_postgres(self.home, self.postgres)
                write_instance(self.home)
                environment = child_environment(self.home, address, source, {**self._links(), **environ})
                if not any(process_of(service, self.home) for service in self.services):
                    fail_lost_runs(self.home, environment)
                self._start_all(environment, source, fresh, say)
            except BaseException:
                for service in reversed(fresh):
                    halt(service, self.home)
                if not had_postgres and not self.postgres.url:
                    close_postgres(self.home, self.postgres)
                raise

    def _links(self) -> dict[str, str]:
        """Where alerts say that runs can be looked at, unless the user's settings say otherwise."""
        ports = {service.key: service.port for service in self.services}
        return {"RECOMMENDER_UI_URL": f"http://127.0.0.1:{ports['ui']}"} if ports.get("ui") else {}

    def _start_all(
        self, environment: Mapping[str, str], source: Path, fresh: list[Service], say: Say
    ) -> None:
        processes = {}
        for service in self.services:
            there = process_of(service, self.home)
            if there is None:
                fresh.append(service)
                processes[service.key] = start(service, self.home, environment, source=str(source))
        for service in self.services:
            if service.key in processes:
                wait_ready(service, self.home, processes[service.key])
        for line in self.status():
            say(line)

    def _require_same_source(self, source: Path) -> None:
        for service in self.services:
            there = process_of(service, self.home)
            if there and there[1].get("source") not in (None, str(source)):
                raise ServiceError(
                    f"{service.title} runs with the source {there[1]['source']}; "
                    f"`make down` first, then start it with {source}"
                )

    def down(self, say: Say) -> None:
        """Stop everything, the last started first, and say what was stopped."""
        with self._lock():
            stopped = [service for service in reversed(self.services) if halt(service, self.home)]
            for service in stopped:
                say(f"stopped {service.title}")
            if self.postgres.url:
                say("PostgreSQL is yours (RECOMMENDER_POSTGRES_URL): it was left alone")
                return
            server = Server(home=self.home, port=self.postgres.port)
            if close_postgres(self.home, self.postgres):
                say("stopped PostgreSQL")
            elif server.process():
                say("PostgreSQL is used by a run: it stops when that ends")
            elif not stopped:
                say("nothing was running")

    def status(self) -> list[str]:
        """One line for each service: whether it runs, where, as which process."""
        server = Server(home=self.home, port=self.postgres.port)
        database = server.process()
        lines = [f"{'PostgreSQL':<20} your own (RECOMMENDER_POSTGRES_URL)"]
        if not self.postgres.url:
            where = f"127.0.0.1:{server.listening_port()}"
            lines = [_line("PostgreSQL", database, where)]
        for service in self.services:
            there = process_of(service, self.home)
            process, facts = there or (None, {})
            where = f"http://127.0.0.1:{facts['port']}" if facts.get("port") else ""
            lines.append(_line(service.title, process, where))
        return lines

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with locked(self.home.logs / "stack.lock", timeout=1):
                yield
        except TransientError as error:
            raise ServiceError("another `up` or `down` is at work; wait for it, then try again") from error


def _line(title: str, process: psutil.Process | None, where: str) -> str:
    if process is None:
        return f"{title:<20} not running"
    return f"{title:<20} {where or 'running':<24} process {process.pid}"
