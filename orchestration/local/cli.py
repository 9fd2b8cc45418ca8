"""`python -m orchestration {up,down,status,run,demo,exec}`: the system on one machine."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from expectations.errors import RecommenderError
from orchestration.home import Home
from orchestration.local import commands
from orchestration.local.postgres import PostgresSettings
from orchestration.local.stack import Ports

EPILOG = """environment:
  RECOMMENDER_HOME           where everything is kept (default: .recommender)
  RECOMMENDER_SOURCE         what --source says where it is not given
  RECOMMENDER_POSTGRES_URL   a PostgreSQL of your own instead of the embedded one
  RECOMMENDER_POSTGRES_PORT  port of the embedded PostgreSQL (default: 5433)
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(
        prog="python -m orchestration",
        description="Starts and stops the recommender's services and runs its job.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    part = whole.add_subparsers(dest="command", required=True, metavar="{up,down,status,run,demo,exec}")
    start = part.add_parser("up", help="start PostgreSQL, Dagster's UI and daemon, and the API")
    part.add_parser("down", help="stop all of them")
    part.add_parser("status", help="say which of them run")
    run = part.add_parser("run", help="ingest, validate, train, evaluate and deploy a source's data")
    demo = part.add_parser("demo", help="run Complete Journey and show three households' recommendations")
    program = part.add_parser("exec", help="execute a program with PostgreSQL and our environment")
    program.add_argument("program", nargs=argparse.REMAINDER, help="such as: dagster asset list -m …")
    for command in (start, run):
        command.add_argument(
            "--source", help="your source.toml (default: Complete Journey, which pip brings)"
        )
    start.add_argument(
        "--port-ui", type=_port, default=Ports().ui, help="Dagster's UI (default: %(default)s)"
    )
    for command in (start, demo):
        command.add_argument("--port-api", type=_port, default=Ports().api, help="API (default: %(default)s)")
    return whole


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def dispatch(options: argparse.Namespace, context: commands.Context) -> int:
    """Carry out a command; its exit code."""
    if options.command == "up":
        return commands.up(context, options.source, Ports(ui=options.port_ui, api=options.port_api))
    if options.command == "run":
        return commands.run(context, options.source)
    if options.command == "demo":
        return commands.demo(context, Ports(api=options.port_api))
    if options.command == "exec":
        if not options.program:
            parser().error("exec needs a program, such as: dagster asset list -m orchestration.definitions")
        return commands.execute(context, options.program)
    return {"down": commands.down, "status": commands.status}[options.command](context)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process edge: reads the environment once, turns errors into one line and an exit code."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)  # so that what was started is stopped
    try:
        context = commands.Context(
            home=Home.from_environment(os.environ),
            postgres=PostgresSettings.from_environment(os.environ),
            environ=dict(os.environ),
        )
        return dispatch(options, context)
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
