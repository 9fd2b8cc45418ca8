"""Dagster definitions as small as they can be, for the tests of what runs them."""

import json
import os
import sys
import time
from pathlib import Path

import dagster as dg


@dg.asset
def landed(context: dg.AssetExecutionContext) -> None:
    context.log.info("a line of Dagster's log")
    for part in range(3):
        sys.stderr.write(f"\rlanding {part + 1}/3")
        sys.stderr.flush()
    sys.stderr.write("\n")
    time.sleep(float(os.environ.get("TINY_SLEEP", "1.2")))


@dg.asset_check(asset=landed)
def enough_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


@dg.asset(deps=[landed])
def evaluated() -> None:
    if os.environ.get("TINY_FAIL"):
        raise ValueError("table orders has 3 rows too many; remove them")
    report = Path(os.environ["RECOMMENDER_HOME"]) / "reports" / "latest.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    metrics = {"auc": 0.75, "num_exposures": 8}
    report.write_text(json.dumps({"demo_users": ["1", "2", "3", "4"], "model": metrics}))


defs = dg.Definitions(
    assets=[landed, evaluated],
    asset_checks=[enough_rows],
    jobs=[dg.define_asset_job("recommender")],
    executor=dg.multiprocess_executor,
)
