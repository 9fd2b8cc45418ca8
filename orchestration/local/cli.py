"""`python -m orchestration {up,down,status,run,rollback,unpin,erase,keys,demo,exec}`: the system on one machine.

One function for each command; it returns the exit code.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil

from expectations.errors import RecommenderError, ServiceError
from expectations.storage.atomic import read_json
from orchestration.alerting.channels import read_services
from orchestration.environment import LEDGER_URL, given
from orchestration.home import Home
from orchestration.local.instance import (
    child_environment,
    fail_lost_runs,
    require_no_run,
    source_file,
    write_instance,
)
from orchestration.local.job_run import run_job
from orchestration.local.postgres import PostgresSettings, running
from orchestration.local.processes import end_child, free_port, is_free, start_child, wait_until
from orchestration.local.report_text import recommendation_text, refusal_text, report_table, serving_line
from orchestration.local.stack import (
    DEFINITIONS,
    GRACE_SECONDS,
    READY_SECONDS,
    Ports,
    Stack,
    api_service,
    dagster_services,
    page_addresses,
    page_services,
    responds,
    served_bento,
    serving,
)
from orchestration.local.supervision import Supervisor
from serving.api.keys import SCOPES, new_key, read_keys, revoke_key
from serving.release import deployment as release

JOB = "recommender"
PORT_TITLES = {"ui": "Dagster's UI", "api": "API", "docs": "Data Docs", "tensorboard": "TensorBoard"}
REFUSED = 3
"""Exit code of a run that went well to its end, whose model the gate refused."""

EPILOG = """environment:
  RECOMMENDER_HOME           where everything is kept (default: .recommender)
  RECOMMENDER_SOURCE         what --source says where it is not given
  RECOMMENDER_MEMORY         what DuckDB may use in a step, such as 6GB (default: half of the machine's)
  RECOMMENDER_MAX_RUN_HOURS  after which `up` ends a run that hangs (default: 24)
  RECOMMENDER_RETENTION_DAYS how long the ledger keeps its rows, items apart (default: for ever)
  RECOMMENDER_POSTGRES_URL   a PostgreSQL of your own instead of the embedded one
  RECOMMENDER_POSTGRES_PORT  port of the embedded PostgreSQL (default: a free one, kept in the home)

exit code of run and demo: 0 where a model was deployed or a pin keeps it waiting, 3 where the gate refused it,
1 where the run failed
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="python -m orchestration",
        description="Starts and stops the recommender's services and runs its job.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    part = whole.add_subparsers(
        dest="command", required=True, metavar="{up,down,status,run,rollback,unpin,erase,keys,demo,exec}"
    )
    start = part.add_parser("up", help="start PostgreSQL, Dagster's UI and daemon, the API and pages")
    start.set_defaults(act=lambda c, o: up(c, o.source, _ports(c, o)))
    part.add_parser("down", help="stop all of them").set_defaults(act=lambda c, _: down(c))
    part.add_parser(
        "status", help="say which of them run, which model serves, and which alerts were not delivered"
    ).set_defaults(act=lambda c, _: status(c))
    whole_run = part.add_parser("run", help="ingest, validate, train, evaluate and deploy a source's data")
    whole_run.set_defaults(act=lambda c, o: run(c, o.source))
    back = part.add_parser("rollback", help="let the model before serve again, and pin it")
    back.add_argument(
        "--to", default="", help="how the hash of another model begins that is still in the store"
    )
    back.add_argument("--reason", default="", help="why, for those who ask later")
    back.set_defaults(act=lambda c, o: rollback(c, o.to, o.reason))
    lift = part.add_parser("unpin", help="lift the pin: the next run deploys the approved model")
    lift.set_defaults(act=lambda c, _: unpin(c))
    gone = part.add_parser(
        "erase", help="erase a shopper from the ledger and every copy, and write a receipt"
    )
    gone.add_argument("user_id", help="the shopper's id, as the shop's tables have it")
    gone.set_defaults(act=lambda c, o: erase(c, o.user_id))
    keys = part.add_parser("keys", help="make, list and revoke keys of the API")
    _add_key_commands(keys)
    example = part.add_parser("demo", help="run Complete Journey and show three households' recommendations")
    example.set_defaults(act=lambda c, o: demo(c, _ports(c, o)))
    program = part.add_parser("exec", help="execute a program with PostgreSQL and our environment")
    program.add_argument("program", help="such as: dagster asset list -m …")
    program.add_argument("arguments", nargs=argparse.REMAINDER, help="what it is given")
    program.set_defaults(act=lambda c, o: execute(c, [o.program, *o.arguments]))
    for command in (start, whole_run):
        command.add_argument(
            "--source", help="your source.toml (default: Complete Journey, which pip brings)"
        )
    for name, title in PORT_TITLES.items():
        for command in (start, example) if name == "api" else (start,):
            default = f"{title} (default: {getattr(Ports(), name)}, or a free one where that is taken)"
            command.add_argument(f"--port-{name}", type=_port, help=default)
    return whole


def _add_key_commands(keys: argparse.ArgumentParser) -> None:
    part = keys.add_subparsers(dest="keys_command", required=True, metavar="{new,list,revoke}")
    new = part.add_parser(
        "new", help="make a key and print it, once; from the first one on, all requests need one"
    )
    new.add_argument("name", help="whose it is")
    new.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=SCOPES,
        help="what it opens: read (recommendations, metrics), write (events, outcomes, …), admin (all); repeat it",
    )
    new.set_defaults(act=lambda c, o: make_key(c, o.name, o.scope))
    part.add_parser("list", help="say which there are").set_defaults(act=lambda c, _: list_keys(c))
    revoke = part.add_parser("revoke", help="let a key open nothing any more")
    revoke.add_argument("name", help="whose it is")
    revoke.set_defaults(act=lambda c, o: unmake_key(c, o.name))


def _ports(context: "Context", options: argparse.Namespace) -> Ports:
    """The ports that were asked for; else those on which the services run; else the usual ones, or free ones."""
    running_on = Supervisor(home=context.home).facts().get("ports", {})
    usual = dataclasses.asdict(Ports())
    asked = {name: getattr(options, f"port_{name}", None) or running_on.get(name) for name in usual}
    return Ports(**{n: asked[n] or (port if is_free(port) else free_port()) for n, port in usual.items()})


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every command works on: where all is kept, the environment, and which programs are started.

    Attributes:
        service: what `bentoml serve` serves; empty: the Bento of the release that serves.
    """

    home: Home
    postgres: PostgresSettings
    environ: Mapping[str, str]
    definitions: str = DEFINITIONS
    service: str = ""

    def stack(self, ports: Ports) -> Stack:
        """The services, on these ports."""
        api = api_service(ports.api, self.service or served_bento(self.home))
        services = [*dagster_services(ports.ui, self.definitions), api, *page_services(self.home, ports)]
        return Stack(home=self.home, postgres=self.postgres, services=services)


def up(context: Context, source: str | None, ports: Ports) -> int:
    """Start all services.

    Raises:
        SettingError: a channel of alerts is set wrongly; it is told now, not at the first alert.
    """
    read_services(context.environ)
    context.stack(ports).up(_source(context, source), context.environ, _say)
    return 0


def down(context: Context) -> int:
    """Stop all services."""
    context.stack(Ports()).down(_say)
    return 0


def status(context: Context) -> int:
    """Say which services run, which channels lack alerts, and which model serves."""
    _say("\n".join(context.stack(Ports()).status()))
    _say(serving_line(context.home.deployment.parent))
    return 0


def rollback(context: Context, to: str, reason: str) -> int:
    """Let the model before serve again, or the one whose hash begins with `to`, and pin it."""
    folder, decisions = context.home.deployment.parent, context.home.gate_decisions
    from serving.api.loading import check

    who = psutil.Process().username()
    release.rollback(folder, gate_decisions=decisions, who=who, check=check, reason=reason, to=to)
    _say(serving_line(folder))
    return 0


def unpin(context: Context) -> int:
    """Lift the pin."""
    lifted = release.unpin(context.home.deployment.parent, who=psutil.Process().username())
    _say("the pin is lifted; the next run deploys the approved model" if lifted else "no model is pinned")
    return 0


def erase(context: Context, user_id: str) -> int:
    """Erase a shopper, and say what was removed."""
    from orchestration.pipeline.erasure import erase as erase_shopper  # loads DuckDB and SQLAlchemy's dialect

    with _environment(context, _source(context, None)) as environment:
        require_no_run(context.home, environment)
        receipt = erase_shopper(context.home, environment[LEDGER_URL], user_id)
        require_no_run(context.home, environment)  # it may have copied what was still there
    _say(receipt.text())
    return 0


def make_key(context: Context, name: str, scopes: Sequence[str]) -> int:
    """Make a key of the API and print it, which nothing does again."""
    _say(new_key(context.home.api_keys, name, sorted(set(scopes))))
    return 0


def list_keys(context: Context) -> int:
    """Say which keys there are, what they open and since when."""
    for key in read_keys(context.home.api_keys):
        _say(f"{key.name}   {', '.join(key.scopes)}   since {key.created_at}")
    return 0


def unmake_key(context: Context, name: str) -> int:
    """Let a key open nothing any more."""
    revoke_key(context.home.api_keys, name)
    _say(f"the key of {name} opens nothing any more")
    return 0


@contextlib.contextmanager
def _environment(context: Context, source: Path) -> Iterator[dict[str, str]]:
    """The environment of programs that need PostgreSQL and Dagster's instance, while both are there."""
    with running(context.home, context.postgres) as databases:
        write_instance(context.home, context.environ)
        addresses = page_addresses(Supervisor(home=context.home).facts().get("ports", {}))
        yield {**addresses, **child_environment(context.home, databases, source, context.environ)}


def run(context: Context, source: str | None) -> int:
    """Execute the whole job and print what it came to; 1 if it failed, `REFUSED` if the gate refused the model."""
    with _environment(context, _source(context, source)) as environment:
        return _run(context, environment)


def demo(context: Context, ports: Ports) -> int:
    """Run Complete Journey, ask the API for three households, print the table."""
    with _environment(context, source_file(None)) as environment:
        if code := _run(context, environment, table=False):
            return code
        report = read_json(context.home.report)
        api = api_service(ports.api, context.service or served_bento(context.home))
        with serving(api, context.home, environment) as url:
            await_model(url)
            for reply in ask(url, report["demo_users"][:3]):
                _say(recommendation_text(reply) + "\n")
    _say(report_table(report))
    _say("\nnext: `make up` starts Dagster's UI and the API; `make run SOURCE=…` takes data of your own")
    return 0


def execute(context: Context, program: Sequence[str]) -> int:
    """Execute any program (`dagster asset list …`) with PostgreSQL and the environment of a run; its exit code.

    Raises:
        ServiceError: there is no such program.
    """
    with _environment(context, _source(context, None)) as whole:
        environment = given("run", whole)
        folder = str(Path(sys.executable).parent)  # the programs that came with our packages
        environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", os.defpath)])
        found = shutil.which(program[0], path=environment["PATH"])
        if found is None:
            raise ServiceError(f"there is no program {program[0]}; check its name")
        child = start_child([found, *program[1:]], env=environment)
        try:
            return child.wait()
        except BaseException:
            end_child(child, first=signal.SIGTERM, grace=GRACE_SECONDS)
            raise


def await_model(url: str) -> None:
    """Wait until the API has loaded the deployed model; it lives, and answers 503, before that.

    Raises:
        ServiceError: it has none after `READY_SECONDS`.
    """
    if not wait_until(lambda: responds(f"{url}/readyz"), READY_SECONDS, pause=0.3):
        raise ServiceError(
            f"the API at {url} loaded no model in {READY_SECONDS} s; see whether the gate approved "
            "the model, and the log logs/api.log in RECOMMENDER_HOME"
        )


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
    path = context.home.report
    daemon = Supervisor(home=context.home).lives("daemon")
    fail_lost_runs(context.home, environment, daemon=daemon)
    result = run_job(
        context.home, environment, definitions=context.definitions, job=JOB, stream=sys.stderr.buffer
    )
    written = result.began is not None and path.exists() and path.stat().st_mtime >= result.began
    report = read_json(path) if written else {}
    refusal = refusal_text(report) if written else ""
    if written and (table or refusal or not result.succeeded):  # a rejected model is reported like any other
        _say("\n" + report_table(report))
    if not result.succeeded:
        reasons = [f"\n{step} failed: {reason}" for step, reason in result.failures.items()]
        _complain("\n".join([*reasons, f"\nthe run failed; everything it printed is in {result.log}"]))
    elif not written:
        _complain(f"the run wrote no report to {path}; see {result.log}")
    elif refusal:
        _complain("\n" + refusal)
        return REFUSED
    return 0 if result.succeeded and written else 1


def _say(line: str) -> None:
    print(line, flush=True)


def _complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process edge: reads the environment once, turns errors into one line and an exit code."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)  # so that what was started is stopped
    try:
        context = Context(
            home=Home.from_environment(os.environ),
            postgres=PostgresSettings.from_environment(os.environ),
            environ=dict(os.environ),
        )
        return options.act(context, options)
    except RecommenderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        remedy = "run as the user who owns RECOMMENDER_HOME, or choose another"
        print(f"error: no permission for {error.filename}; {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)
