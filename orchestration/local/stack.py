"""The services of one home: PostgreSQL, Dagster's UI and daemon, the recommendation API, and pages to look at.

All are programs of one supervisord (`orchestration.local.supervision`); what is decided here is what they are,
when each of them does its work, and what `up`, `down` and `status` say.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from expectations.errors import ServiceError, SettingError, TransientError
from expectations.storage.locks import locked
from expectations.suites.data_docs import SITE
from orchestration.alerting.outbox import Outbox
from orchestration.environment import DATA_DOCS_URL, TENSORBOARD_URL, UI_URL, Program, given, withheld
from orchestration.home import Home
from orchestration.local.instance import PROJECT, child_environment, fail_lost_runs, write_instance
from orchestration.local.postgres import PostgresSettings, database_url, embedded_databases, running
from orchestration.local.postgres_server import Server
from orchestration.local.processes import end_child, is_free, require_free_port, start_child, tail
from orchestration.local.supervision import Supervisor
from serving.release.pointer import current_release

DEFINITIONS = "orchestration.definitions"
SERVICE = "serving.api.service:Recommender"
READY_SECONDS = 180
GRACE_SECONDS = 20
POSTGRES = "postgres_keeper"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports on 127.0.0.1 of Dagster's UI, the recommendation API, Data Docs and TensorBoard."""

    ui: int = 3000
    api: int = 3001
    docs: int = 3002
    tensorboard: int = 3003


@dataclass(frozen=True, kw_only=True)
class Service:
    """One program that runs in the background.

    Attributes:
        key, title: name of its program and log; name for people.
        program: as what it is given environment variables.
        argv, is_ready: how it is started; whether it does its work yet.
        port, option: where it listens, if it does; the option that chooses another port.
    """

    key: str
    title: str
    program: Program
    argv: Sequence[str]
    is_ready: Callable[[], bool]
    port: int | None = None
    option: str = ""


def responds(url: str) -> bool:
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


def served_bento(home: Home) -> str:
    """What `bentoml serve` is to serve: the Bento that was built with the release that serves, else the checkout."""
    with contextlib.suppress(SettingError):
        release = current_release(home.deployment.parent)
        if release and (home.bentoml / "bentos" / release.bento_tag.replace(":", "/")).is_dir():
            return release.bento_tag
    return SERVICE


def api_service(port: int, service: str = SERVICE) -> Service:
    """The recommendation API, of a Bento or of a module of the checkout."""
    serve = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    if "." in service:
        serve += ["--working-dir", str(PROJECT)]
    return Service(
        key="api",
        title="recommendation API",
        program="api",
        argv=serve,
        is_ready=lambda: responds(f"http://127.0.0.1:{port}/healthz"),
        port=port,
        option="--port-api (make: PORT_API=…)",
    )


def dagster_services(port: int, definitions: str = DEFINITIONS) -> tuple[Service, Service]:
    """Dagster's UI and its daemon, which starts scheduled and queued runs."""
    ui = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    daemon = [sys.executable, "-m", "dagster._daemon", "run"]
    return (
        Service(
            key="ui",
            title="Dagster UI",
            program="ui",
            argv=[*ui, "-m", definitions],
            is_ready=lambda: responds(f"http://127.0.0.1:{port}/server_info"),
            port=port,
            option="--port-ui (make: PORT_UI=…)",
        ),
        Service(
            key="daemon",
            title="Dagster daemon",
            program="daemon",
            argv=[*daemon, "-m", definitions],
            is_ready=lambda: daemons_healthy(port),
        ),
    )


def page_services(home: Home, ports: Ports) -> tuple[Service, Service]:
    """What people look at beside Dagster's UI: Data Docs, and the curves of training."""
    docs = [sys.executable, "-m", "orchestration.local.data_docs", str(home.gx / SITE), str(ports.docs)]
    where = ["--logdir", str(home.training), "--host", "127.0.0.1", "--port", str(ports.tensorboard)]
    return (
        Service(
            key="docs",
            title="Data Docs",
            program="docs",
            argv=docs,
            is_ready=partial(_listens, ports.docs),
            port=ports.docs,
            option="--port-docs (make: PORT_DOCS=…)",
        ),
        Service(
            key="tensorboard",
            title="TensorBoard",
            program="tensorboard",
            argv=[sys.executable, "-m", "tensorboard.main", *where, "--load_fast", "false"],
            is_ready=partial(_listens, ports.tensorboard),
            port=ports.tensorboard,
            option="--port-tensorboard (make: PORT_TENSORBOARD=…)",
        ),
    )


def page_addresses(ports: Mapping[str, int | None]) -> dict[str, str]:
    """Where alerts and metadata link to, by the ports of the services; none where they do not run."""
    variables = {"ui": UI_URL, "docs": DATA_DOCS_URL, "tensorboard": TENSORBOARD_URL}
    return {
        variable: f"http://127.0.0.1:{ports[key]}" for key, variable in variables.items() if ports.get(key)
    }


def _listens(port: int) -> bool:
    return not is_free(port)


def wait_ready(service: Service, home: Home, is_alive: Callable[[], bool]) -> None:
    """Wait until a service does its work.

    Raises:
        ServiceError: it ended, or is not ready in time; shows the end of its log.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not service.is_ready():
        alive = is_alive()
        if not alive or time.monotonic() > deadline:
            log = home.logs / f"{service.key}.log"
            what = f"was not ready in {READY_SECONDS} s" if alive else "ended at once"
            raise ServiceError(
                f"{service.title} {what}; correct what its log says and start again\n{log}:\n{tail(log)}"
            )
        time.sleep(0.3)


def _require_port(service: Service) -> None:
    if service.port is not None:
        remedy = f"stop that program, or choose another port with {service.option}"
        require_free_port(service.port, what=service.title, remedy=remedy)


@contextlib.contextmanager
def serving(service: Service, home: Home, environment: Mapping[str, str]) -> Iterator[str]:
    """A service's address while the block runs: that of `up`, or one started for the block alone.

    Raises:
        ServiceError: it does not start.
    """
    supervisor = Supervisor(home=home)
    if supervisor.states().get(service.key):
        wait_ready(service, home, lambda: supervisor.lives(service.key))
        yield f"http://127.0.0.1:{supervisor.facts()['ports'][service.key]}"
        return
    _require_port(service)
    home.logs.mkdir(parents=True, exist_ok=True)
    with (home.logs / f"{service.key}.log").open("ab") as log:
        child = start_child(
            service.argv,
            env=given(service.program, environment),
            cwd=PROJECT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_ready(service, home, lambda: child.poll() is None)
        yield f"http://127.0.0.1:{service.port}"
    finally:
        if child.poll() is None:
            end_child(child, first=signal.SIGTERM, grace=GRACE_SECONDS)
        child.wait()


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All services of one home: PostgreSQL, and what is started beside it, in the order of `services`."""

    home: Home
    postgres: PostgresSettings
    services: Sequence[Service]

    @property
    def supervisor(self) -> Supervisor:
        """Who keeps the services."""
        return Supervisor(home=self.home)

    @property
    def server(self) -> Server:
        """The embedded PostgreSQL."""
        return Server(home=self.home, port=self.postgres.port)

    def up(self, source: Path, environ: Mapping[str, str], say: Say) -> None:
        """Start what does not run yet and wait until all of it works; what it started ends if one fails.

        Args:
            source: the `source.toml` that runs from the UI use.
            environ: what the services' environments build on.
            say: takes one line for the user.

        Raises:
            ServiceError: a service did not start, or they run with another source.
        """
        with self._lock():
            supervisor, facts = self.supervisor, self.supervisor.facts()
            if facts and facts["source"] != str(source):
                raise ServiceError(
                    f"the services run with the source {facts['source']}; "
                    f"`make down` first, then start them with {source}"
                )
            with running(self.home, self.postgres) as databases:
                try:
                    if facts:
                        supervisor.restart_stopped()
                    else:
                        supervisor.stop()  # what a killed one left
                        write_instance(self.home, environ)
                        environment = child_environment(self.home, databases, source, environ)
                        self._start(source, environment)
                    for service in [*self._postgres(), *self.services]:
                        wait_ready(service, self.home, partial(supervisor.lives, service.key))
                except BaseException:
                    if not facts:
                        supervisor.stop()
                    raise
            for line in self.status():
                say(line)

    def _start(self, source: Path, environment: Mapping[str, str]) -> None:
        fail_lost_runs(self.home, environment)
        for service in self.services:
            _require_port(service)
        ports = {service.key: service.port for service in self.services}
        environment = {**page_addresses(ports), **environment}  # the user's settings may say otherwise
        self.supervisor.write_facts(source=str(source), ports=ports)
        programs = {
            service.key: [*_without(withheld(service.program, environment)), *service.argv]
            for service in [*self._postgres(), *self.services]
        }
        self.supervisor.start(programs, environment)

    def _postgres(self) -> list[Service]:
        """The program that keeps the embedded server running, as one user of it among others."""
        if self.postgres.url:
            return []
        port = str(self.server.listening_port())
        return [
            Service(
                key=POSTGRES,
                title="PostgreSQL",
                program="postgres",
                argv=[sys.executable, "-m", "orchestration.local.postgres", port],
                is_ready=self._is_held,
            )
        ]

    def _is_held(self) -> bool:
        pid = self.supervisor.states().get(POSTGRES, {}).get("pid")
        try:
            files = psutil.Process(pid).open_files() if pid else []
        except psutil.Error:
            return False
        return any(Path(file.path).name == self.server.users_lock.name for file in files)

    def down(self, say: Say) -> None:
        """Stop everything, the last started first, and say what was stopped."""
        with self._lock():
            states = self.supervisor.states()
            had_database = self.server.process() is not None
            self.supervisor.stop()
            stopped = [service.title for service in self.services if states.get(service.key, {}).get("pid")]
            for title in reversed(stopped):
                say(f"stopped {title}")
            if self.postgres.url:
                say("PostgreSQL is yours (RECOMMENDER_POSTGRES_URL): it was left alone")
                return
            self.server.release()  # the program that keeps it may have been killed
            if self.server.process():
                say("PostgreSQL is used by a run: it stops when that ends")
            elif had_database:
                say("stopped PostgreSQL")
            elif not stopped:
                say("nothing was running")

    def status(self) -> list[str]:
        """A line for each service: whether it runs, where, as which process; and for each channel that lacks alerts."""
        database = self.server.process()
        lines = [f"{'PostgreSQL':<20} your own (RECOMMENDER_POSTGRES_URL)"]
        if not self.postgres.url:
            where = f"127.0.0.1:{self.server.listening_port()}"
            lines = [_line("PostgreSQL", database.pid if database else 0, where)]
        states, facts = self.supervisor.states(), self.supervisor.facts()
        for service in self.services:
            port = facts.get("ports", {}).get(service.key)
            where = f"http://127.0.0.1:{port}" if port else ""
            lines.append(_line(service.title, states.get(service.key, {}).get("pid", 0), where))
        address = self.postgres.url and self.postgres.url.set(database="dagster")
        if address := address or (embedded_databases(self.server)["dagster"] if database else None):
            lines += _undelivered(Outbox(url=database_url(address)))
        return lines

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with locked(self.home.logs / "stack.lock", timeout=1):
                yield
        except TransientError as error:
            raise ServiceError("another `up` or `down` is at work; wait for it, then try again") from error


def _undelivered(outbox: Outbox) -> list[str]:
    try:
        outbox.create_tables()
        return [f"{'alerts':<20} {channel.text()}" for channel in outbox.undelivered()]
    except TransientError as error:
        return [f"{'alerts':<20} {error}"]


def _without(names: Sequence[str]) -> list[str]:
    """The beginning of a command line that takes variables from the environment, and then is that command's."""
    return ["/usr/bin/env", *(part for name in names for part in ("-u", name))]


def _line(title: str, pid: int, where: str) -> str:
    return f"{title:<20} {where or 'running':<24} process {pid}" if pid else f"{title:<20} not running"
