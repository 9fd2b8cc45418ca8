"""Training, evaluation and deployment: a bundle, its figures, the gate's verdict, the model that serves."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.assets import metadata
from orchestration.assets.data import OWNERS
from orchestration.assets.failures import told_apart
from orchestration.resources import WorkspaceResource

NUM_TRIALS = 30
SCORERS = ("model", "zero_shot", "lightgbm", "popularity", "champion")


class Training(dg.Config):
    """How the model is trained.

    Attributes:
        full: from scratch, though the model that serves would fit to begin with.
    """

    full: bool = False


class Search(dg.Config):
    """What is searched, and for how long.

    Attributes:
        trials: how many in all, those of a search that was stopped included.
        space: path of a TOML file: which settings, between what; empty: the packaged one.
    """

    trials: int = NUM_TRIALS
    space: str = ""


@dg.asset(
    group_name="training",
    deps=["training_examples"],
    description="One model: the language model fine-tuned on the examples, with its tokenizer, fitted transforms "
    "and a manifest that holds the hash of every file.",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    tags={"layer": "model"},
)
def model_bundle(
    context: dg.AssetExecutionContext, config: Training, workspace: WorkspaceResource
) -> dg.MaterializeResult:
    """Fit a bundle, resuming where a killed run stopped."""
    from orchestration.pipeline import model as steps
    from training.evaluation.plots import loss_curves

    with told_apart():
        made = steps.train(workspace.workspace(), full=config.full)
    facts = made.facts
    context.log.info("bundle %s %s", facts["bundle"][:12], "fitted" if made.made else "is unchanged")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(facts["bundle"]),
        metadata={
            "bundle": facts["bundle"],
            "unchanged": not made.made,
            "initialization": facts["initialization"],
            "validation": metadata.table([_shown(facts["metrics"])]),
            "loss_curves": metadata.picture(loss_curves(facts["history"], facts["metric"]), "loss curves"),
            "seconds": metadata.table([facts["seconds"]]),
            "tensorboard": dg.MetadataValue.path(facts["log_dir"]),
            "folder": dg.MetadataValue.path(made.folder),
        },
    )


@dg.asset(
    group_name="training",
    deps=["training_examples"],
    description="One recipe: the best of many trials, measured on the validation part. The job `search` makes it; "
    "trainings take it where RECOMMENDER_RECIPE names its file.",
    kinds={"optuna", "pytorch"},
    owners=OWNERS,
    tags={"layer": "model"},
)
def searched_recipe(config: Search, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Search for a better recipe, going on where a killed search stopped."""
    from orchestration.pipeline import model as steps

    with told_apart():
        recipe, summary = steps.search(workspace.workspace(), trials=config.trials, space=config.space)
    trials = [{**_shown(trial), **trial["settings"]} for trial in summary["trials"]]
    return dg.MaterializeResult(
        metadata={
            "best_value": summary["best"]["value"],
            "metric": summary["metric"],
            "best": metadata.table([summary["best"]["settings"]]),
            "trials": metadata.table(trials),
            "num_trials": len(trials),
            "use_it": f"RECOMMENDER_RECIPE={recipe}",
            "recipe": dg.MetadataValue.path(recipe),
        }
    )


@dg.asset(
    group_name="evaluation",
    deps=["model_bundle", "training_examples"],
    description="One evaluation per bundle: figures on the test part (later exposures only), before and after "
    "fine-tuning, beside gradient-boosted trees, popularity and the model that serves, with 95 % intervals and slices.",
    kinds={"pytorch", "lightgbm"},
    owners=OWNERS,
    tags={"layer": "model"},
)
def model_evaluation(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Measure the bundle and its rivals on the same rows."""
    from orchestration.pipeline import model as steps
    from training.evaluation import plots

    with told_apart():
        found, made = steps.evaluate(workspace.workspace())
    figures = [{"scorer": name, **_shown(found[name])} for name in SCORERS if found.get(name)]
    slices = [{"slice": name, **_shown(values)} for name, values in found["slices"].items()]
    return dg.MaterializeResult(
        metadata={
            "figures": metadata.table(figures),
            "intervals_95": dg.MetadataValue.json(found["intervals"]),
            "slices": metadata.table(slices),
            "roc": metadata.picture(plots.roc(found), "ROC"),
            "calibration": metadata.picture(plots.calibration(found), "calibration"),
            "lift": metadata.picture(plots.lift(found), "lift by decile"),
            "unchanged": not made,
        },
    )


@dg.asset(
    group_name="evaluation",
    deps=["model_evaluation"],
    description="One verdict per bundle: whether the gate lets this very model serve, rule by rule.",
    kinds={"python"},
    owners=OWNERS,
    tags={"layer": "model"},
    check_specs=[
        dg.AssetCheckSpec("approved", asset="gate_decision", description="Every rule of the gate passed.")
    ],
)
def gate_decision(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Hold the evaluation against the gate's rules."""
    from orchestration.pipeline import model as steps

    with told_apart():
        decision = steps.judge(workspace.workspace())
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
    description="One report of the last run, `reports/latest.json`: rows, checks, figures, verdict, seconds.",
    kinds={"json"},
    owners=OWNERS,
    tags={"layer": "model"},
)
def run_report(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Write the report of this run."""
    from orchestration.pipeline.reporting import report
    from orchestration.run_events import step_seconds

    with told_apart():
        found = report(workspace.workspace(), step_seconds(context.instance, context.run_id))
    figures = [{"scorer": name, **_shown(found[name])} for name in ("zero_shot", "model", "lightgbm")]
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(workspace.workspace().home.report),
            "figures": metadata.table(figures),
        }
    )


@dg.asset(
    group_name="deployment",
    deps=["gate_decision", "run_report", "online_features"],
    description="One pointer to the model that serves. Only a bundle whose own hash the gate approved gets here.",
    kinds={"bentoml"},
    owners=OWNERS,
    tags={"layer": "serving"},
)
def deployed_model(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Put the approved bundle into BentoML's model store, build a Bento, and point the service at it."""
    from orchestration.pipeline import model as steps

    with told_apart():
        deployed = steps.deploy(workspace.workspace())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(deployed.pointer.bundle),
        metadata={
            **vars(deployed.pointer),
            "another_model_served_before": deployed.changed,
            "seconds": metadata.table([dict(deployed.seconds)]),
        },
    )


def _shown(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The single numbers among figures."""
    return {name: value for name, value in figures.items() if not isinstance(value, dict | list)}
