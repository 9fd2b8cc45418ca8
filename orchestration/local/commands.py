"""What `python -m orchestration` does: one function for each command, returning its exit code."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from expectations.errors import ServiceError
from expectations.storage.atomic import read_json
from orchestration.home import Home
from orchestration.local.instance import child_environment, source_file, write_instance
from orchestration.local.job_run import run_job
from orchestration.local.postgres import PostgresSettings, running
from orchestration.local.report_text import recommendation_text, report_table
from orchestration.local.stack import (
    DEFINITIONS,
    READY_SECONDS,
    SERVICE,
    Ports,
    Stack,
    answers,
    api_service,
    dagster_services,
    serving,
)

JOB = "recommender"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every command works on.

    Attributes:
        home: the home folder.
        postgres: where PostgreSQL is.
        environ: the environment that the command was started with.
        definitions: module of the Dagster definitions.
        service: the BentoML service.
    """

    home: Home
    postgres: PostgresSettings
    environ: Mapping[str, str]
    definitions: str = DEFINITIONS
    service: str = SERVICE

    def stack(self, ports: Ports) -> Stack:
        """The services, on these ports."""
        services = [*dagster_services(ports.ui, self.definitions), api_service(ports.api, self.service)]
        return Stack(home=self.home, postgres=self.postgres, services=services)


def up(context: Context, source: str | None, ports: Ports) -> int:
    """Start all services."""
    context.stack(ports).up(_source(context, source), context.environ, _say)
    return 0


def down(context: Context) -> int:
    """Stop all services."""
    context.stack(Ports()).down(_say)
    return 0


def status(context: Context) -> int:
    """Say which services run."""
    for line in context.stack(Ports()).status():
        _say(line)
    return 0


def run(context: Context, source: str | None) -> int:
    """Execute the whole job and print what it came to; 1 if it failed."""
    path = _source(context, source)
    with running(context.home, context.postgres) as address:
        write_instance(context.home)
        environment = child_environment(context.home, address, path, context.environ)
        return _run(context, environment)


def demo(context: Context, ports: Ports) -> int:
    """Run Complete Journey, ask the API for three households, print the table."""
    path = source_file(None)
    with running(context.home, context.postgres) as address:
        write_instance(context.home)
        environment = child_environment(context.home, address, path, context.environ)
        code = _run(context, environment, table=False)
        if code:
            return code
        report = read_json(context.home.report)
        with serving(api_service(ports.api, context.service), context.home, environment) as url:
            await_model(url)
            for answer in ask(url, report["demo_users"][:3]):
                _say(recommendation_text(answer) + "\n")
    _say(report_table(report))
    _say("\nnext: `make up` starts Dagster's UI and the API; `make run SOURCE=…` takes data of your own")
    return 0


def execute(context: Context, program: Sequence[str]) -> int:
    """Execute any program (`dagster asset list …`) with PostgreSQL and the environment; its exit code.

    Raises:
        ServiceError: there is no such program.
    """
    with running(context.home, context.postgres) as address:
        write_instance(context.home)
        environment = child_environment(context.home, address, _source(context, None), context.environ)
        folder = str(Path(sys.executable).parent)  # the programs that came with our packages
        environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", os.defpath)])
        found = shutil.which(program[0], path=environment["PATH"])
        if found is None:
            raise ServiceError(f"there is no program {program[0]}; check its name")
        return subprocess.run([found, *program[1:]], env=environment, check=False).returncode


def await_model(url: str) -> None:
    """Wait until the API has loaded the deployed model; it lives, and answers 503, before that.

    Raises:
        ServiceError: it has none after `READY_SECONDS`.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not answers(f"{url}/readyz"):
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the API at {url} loaded no model in {READY_SECONDS} s; see whether the gate approved "
                "the model, and the log logs/api.log in RECOMMENDER_HOME"
            )
        time.sleep(0.3)


def ask(url: str, users: Sequence[str]) -> list[dict[str, Any]]:
    """POST /recommend for each shopper.

    Raises:
        ServiceError: the API does not answer with a recommendation.
    """
    replies = []
    for user in users:
        body = {"user_id": user, "scenario": "campaign", "k": 3}
        try:
            response = httpx.post(f"{url}/recommend", json=body, timeout=60, trust_env=False)
        except httpx.HTTPError as error:
            raise ServiceError(f"{url}/recommend does not answer ({type(error).__name__})") from error
        if not response.is_success:
            raise ServiceError(
                f"{url}/recommend answered {response.status_code} for household {user}: {response.text[:500]}"
            )
        replies.append(response.json())
    return replies


def _source(context: Context, source: str | None) -> Path:
    return source_file(source or context.environ.get("RECOMMENDER_SOURCE"))


def _run(context: Context, environment: Mapping[str, str], *, table: bool = True) -> int:
    home = context.home
    before = _written(home.report)
    stream = sys.stderr.buffer
    result = run_job(home, environment, definitions=context.definitions, job=JOB, stream=stream)
    if not result.succeeded:
        if _written(home.report) != before:  # a model that the gate rejected is reported like any other
            _say("\n" + report_table(read_json(home.report)))
        for step, reason in result.failures.items():
            _complain(f"\n{step} failed: {reason}")
        _complain(f"\nthe run failed; everything it printed is in {result.log}")
        return 1
    if _written(home.report) == before:
        _complain(f"the run wrote no report to {home.report}; see {result.log}")
        return 1
    if table:
        _say("\n" + report_table(read_json(home.report)))
    return 0


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
