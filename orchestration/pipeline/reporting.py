"""What a run came to, for people and their scripts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from expectations.contracts.gate_decision import read_gate_decision
from expectations.storage.atomic import read_json, write_json
from expectations.storage.datasets import current_folder
from orchestration.pipeline.data import validate
from orchestration.pipeline.model import trained_bundle
from orchestration.pipeline.workspace import Workspace


def report(workspace: Workspace, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Write `reports/latest.json`: what the run came to, for people and their scripts."""
    source = workspace.source()
    _, _, digest = trained_bundle(workspace)
    evaluation = read_json(workspace.home.evaluations / f"{digest}.json")
    decision = read_gate_decision(workspace.home.gate_decisions, digest)
    tables = validate(workspace)
    checks = [check for table in tables.values() for check in table.checks]
    failed = [check for check in checks if not check.passed]
    found = {
        "source": source.name,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": digest,
        **{name: evaluation[name] for name in ("zero_shot", "model", "lightgbm", "popularity", "intervals")},
        "gate": {"approved": decision.approved, "rules": [vars(rule) for rule in decision.rules]},
        "tables": {
            name: {"rows": table.num_rows, "quarantined": _num_quarantined(workspace, name)}
            for name, table in tables.items()
        },
        "checks": {
            "passed": len(checks) - len(failed),
            "warned": sum(check.severity == "warning" for check in failed),
            "failed": sum(check.severity == "critical" for check in failed),
        },
        "demo_users": _demo_users(workspace),
        "seconds": dict(seconds),
    }
    write_json(workspace.home.report, found)
    return found


def _num_quarantined(workspace: Workspace, table: str) -> int:
    """Rows of a table that are in quarantine, by whichever stage."""
    import pyarrow.parquet as pq

    folder = workspace.home.quarantine / workspace.source().name / table
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def _demo_users(workspace: Workspace) -> list[str]:
    """Three shoppers of the latest exposures: with much, some and little history."""
    import pandas as pd

    examples = current_folder(workspace.home.examples / workspace.source().name)
    columns = ["user_id", "event_timestamp", "user_num_events"]
    rows = pd.read_parquet(examples / "rows.parquet", columns=columns)
    latest = (
        rows.sort_values(["event_timestamp", "user_id"]).drop_duplicates("user_id", keep="last").tail(100)
    )
    ordered = latest.sort_values(["user_num_events", "user_id"], ascending=False)["user_id"].tolist()
    return list(dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]]))
