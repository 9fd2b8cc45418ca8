"""Dagster definitions as small as they can be, for the tests of what runs them."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import dagster as dg

from orchestration.execution.executor import in_turn
from orchestration.home import Home
from orchestration.resources import POOL, WorkspaceResource


@dg.asset(pool=POOL)
def landed(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> None:
    context.log.info("a line of Dagster's log")
    for part in range(3):
        sys.stderr.write(f"\rlanding {part + 1}/3")
        sys.stderr.flush()
    sys.stderr.write("\n")
    while os.environ.get("TINY_HANG"):
        with contextlib.suppress(BaseException):  # nothing that it is told ends it
            time.sleep(1)
    time.sleep(float(os.environ.get("TINY_SLEEP", "1.2")))


@dg.asset_check(asset=landed)
def enough_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


@dg.asset(deps=[landed], pool=POOL, check_specs=[dg.AssetCheckSpec("approved", asset="evaluated")])
def evaluated() -> dg.MaterializeResult:
    if os.environ.get("TINY_FAIL"):
        raise ValueError("table orders has 3 rows too many; remove them")
    if os.environ.get("TINY_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    report = Path(os.environ["RECOMMENDER_HOME"]) / "reports" / "latest.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    metrics = {"auc": 0.75, "num_exposures": 8}
    refused = bool(os.environ.get("TINY_REFUSE"))
    rules = [{"rule": "champion", "passed": not refused, "reason": "auc is worse than the champion's"}]
    gate = {"approved": not refused, "rules": rules}
    found = {"demo_users": ["1", "2", "3", "4"], "model": metrics, "bundle": "4f0c9a1b2c3d4e5f", "gate": gate}
    report.write_text(json.dumps(found))
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=not refused)])


@dg.op
def nothing() -> None:
    """Uses no pool."""


@dg.job(executor_def=dg.in_process_executor)
def at_once() -> None:
    nothing()


defs = dg.Definitions(
    assets=[landed, evaluated],
    asset_checks=[enough_rows],
    jobs=[dg.define_asset_job("recommender"), at_once],
    resources={"workspace": WorkspaceResource()},
    executor=in_turn(Home.from_environment(os.environ).queue, dg.multiprocess_executor),
)
