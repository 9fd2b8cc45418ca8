"""Evaluation: a bundle's metrics, the gate's decision on it, the report of the run."""

import dagster as dg

from orchestration.assets import metadata
from orchestration.assets.failures import translate_errors
from orchestration.resources import WorkspaceResource

SCORERS = ("model", "zero_shot", "lightgbm", "popularity", "champion")


@dg.asset(
    group_name="evaluation",
    deps=["model_bundle", "training_examples"],
    description="One evaluation per bundle: metrics on the test part (later exposures only), before and after "
    "fine-tuning, beside gradient-boosted trees, popularity and the model that serves, with 95 % intervals and slices.",
    kinds={"pytorch", "lightgbm"},
    owners=metadata.OWNERS,
    tags={"layer": "model"},
)
def model_evaluation(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Measure the bundle and its rivals on the same rows."""
    from orchestration.pipeline import model as steps
    from training.evaluation import plots

    with translate_errors():
        found, created = steps.evaluate(workspace.workspace())
    rows = [{"scorer": name, **metadata.scalars(found[name])} for name in SCORERS if found.get(name)]
    slices = [{"slice": name, **metadata.scalars(values)} for name, values in found["slices"].items()]
    return dg.MaterializeResult(
        metadata={
            "metrics": metadata.table(rows),
            "intervals_95": dg.MetadataValue.json(found["intervals"]),
            "slices": metadata.table(slices),
            "roc": metadata.picture(plots.roc(found), "ROC"),
            "calibration": metadata.picture(plots.calibration(found), "calibration"),
            "lift": metadata.picture(plots.lift(found), "lift by decile"),
            "unchanged": not created,
        },
    )


@dg.asset(
    group_name="evaluation",
    deps=["model_evaluation"],
    description="One gate decision per bundle: whether the gate lets this very model serve, rule by rule.",
    kinds={"python"},
    owners=metadata.OWNERS,
    tags={"layer": "model"},
    check_specs=[
        dg.AssetCheckSpec("approved", asset="gate_decision", description="Every rule of the gate passed.")
    ],
)
def gate_decision(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Hold the evaluation against the gate's rules."""
    from orchestration.pipeline import model as steps

    with translate_errors():
        decision = steps.decide(workspace.workspace())
    rules = [vars(rule) for rule in decision.rules]
    failed = [
        {"table": "gate", "rule": r["rule"], "rows": None, "sample": [], "message": r["reason"]}
        for r in rules
        if not r["passed"]
    ]
    return dg.MaterializeResult(
        metadata={"bundle": decision.bundle, "approved": decision.approved, "rules": metadata.table(rules)},
        check_results=[
            dg.AssetCheckResult(
                passed=decision.approved,
                check_name="approved",
                metadata={"failed_rules": dg.MetadataValue.json(failed)},
            )
        ],
    )


@dg.asset(
    group_name="evaluation",
    deps=["gate_decision"],
    description="One report of the last run, `reports/latest.json`: rows, checks, metrics, gate decision, seconds.",
    kinds={"json"},
    owners=metadata.OWNERS,
    tags={"layer": "model"},
)
def run_report(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Write the report of this run."""
    from orchestration.pipeline.reporting import report
    from orchestration.run_events import step_seconds

    with translate_errors():
        found = report(workspace.workspace(), step_seconds(context.instance, context.run_id))
    rows = [{"scorer": name, **metadata.scalars(found[name])} for name in ("zero_shot", "model", "lightgbm")]
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(workspace.workspace().home.report),
            "metrics": metadata.table(rows),
        }
    )
