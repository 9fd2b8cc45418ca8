"""The model: its training, the search for a better recipe, evaluation, gate, report and deployment."""

import dagster as dg

from orchestration.assets import metadata
from orchestration.pipeline import model as steps
from orchestration.pipeline.ladder import gain_text
from orchestration.resources import POOL, WorkspaceResource, translate_errors
from orchestration.run_events import step_seconds


class Training(dg.Config):
    """How the model is trained: `full`, from scratch, though the model that serves would fit to begin with."""

    full: bool = False


class Search(dg.Config):
    """What is searched, and for how long.

    Attributes:
        trials: how many in all, those of a search that was stopped included.
        space: path of a TOML file: which settings, between what; empty: the packaged one.
    """

    trials: int = 30
    space: str = ""


@dg.asset(
    group_name="training",
    pool=POOL,
    deps=["training_examples"],
    kinds={"pytorch", "huggingface"},
    tags={"layer": "model"},
)
def model_bundle(
    context: dg.AssetExecutionContext, config: Training, workspace: WorkspaceResource
) -> dg.MaterializeResult:
    """One model: the language model fine-tuned on the examples, with tokenizer and fitted transforms.

    Its manifest holds the hash of every file. Goes on where a killed run stopped.
    """
    from training.evaluation.plots import loss_curves

    with translate_errors():
        result = steps.train(workspace.workspace(), full=config.full)
    facts = result.facts
    context.log.info("bundle %s %s", facts["bundle"][:12], "fitted" if result.created else "is unchanged")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(facts["bundle"]),
        metadata={
            "bundle": facts["bundle"],
            "unchanged": not result.created,
            "initialization": facts["initialization"],
            "validation": metadata.table([metadata.scalars(facts["metrics"])]),
            "loss_curves": metadata.picture(loss_curves(facts["history"], facts["metric"]), "loss curves"),
            "seconds": metadata.table([facts["seconds"]]),
            **metadata.curves(facts["log_dir"]),
            "folder": dg.MetadataValue.path(result.folder),
        },
    )


@dg.asset(
    group_name="training",
    pool=POOL,
    deps=["training_examples"],
    kinds={"optuna", "pytorch"},
    tags={"layer": "model"},
)
def searched_recipe(config: Search, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One recipe: the best of many trials, measured on the validation part.

    The job `search` makes it, going on where a killed search stopped; trainings take it where
    RECOMMENDER_RECIPE names its file.
    """
    with translate_errors():
        recipe, summary = steps.search(workspace.workspace(), trials=config.trials, space=config.space)
    trials = [{**metadata.scalars(trial), **trial["settings"]} for trial in summary["trials"]]
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
    pool=POOL,
    deps=["model_bundle", "training_examples"],
    kinds={"pytorch", "lightgbm"},
    tags={"layer": "model"},
)
def model_evaluation(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One evaluation per bundle: metrics on the test part (later exposures only), with intervals and slices.

    Beside plain methods and the model that serves, on the same rows; and what each part of the model adds there.
    """
    from training.evaluation import plots

    with translate_errors():
        found, created = steps.evaluate(workspace.workspace())
    slices = [
        {"slice": name, **metadata.scalars(values), "over the best baseline": gain_text(values["gain"])}
        for name, values in found["slices"].items()
    ]
    return dg.MaterializeResult(
        metadata={
            "metrics": metadata.metrics(found, steps.SCORERS),
            **metadata.ladder(found),
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
    pool=POOL,
    deps=["model_evaluation"],
    kinds={"python"},
    tags={"layer": "model"},
    check_specs=[
        dg.AssetCheckSpec("approved", asset="gate_decision", description="Every rule of the gate passed.")
    ],
)
def gate_decision(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One gate decision per bundle: whether the gate lets this very model serve, rule by rule."""
    with translate_errors():
        decision = steps.decide(workspace.workspace())
    rules = [vars(rule) for rule in decision.rules]
    failed = [
        metadata.failed_rule("gate", r.rule, None, [], r.reason) for r in decision.rules if not r.passed
    ]
    return dg.MaterializeResult(
        metadata={"bundle": decision.bundle, "approved": decision.approved, "rules": metadata.table(rules)},
        check_results=[
            dg.AssetCheckResult(
                passed=decision.approved,
                check_name="approved",
                metadata=metadata.broken_rules(failed),
            )
        ],
    )


@dg.asset(
    group_name="training",
    pool=POOL,
    deps=["gate_decision", "model_bundle", "training_examples"],
    kinds={"pytorch", "huggingface"},
    tags={"layer": "model"},
    check_specs=[
        dg.AssetCheckSpec(
            "sane",
            asset="final_model",
            description="The refit agrees with its evaluated parent, and is calibrated on the latest rows.",
        )
    ],
)
def final_model(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One model per approved bundle: its recipe fitted again, to all known rows, the test part among them.

    This is what serves; comparisons and warm starts take its parent, which has not seen the test part.
    """
    with translate_errors():
        result = steps.refit(workspace.workspace())
    if result is None:
        checks = [
            dg.AssetCheckResult(passed=True, check_name="sane", metadata={"note": "nothing was refitted"})
        ]
        note = "the gate refused the bundle, so nothing is refitted"
        return dg.MaterializeResult(metadata={"note": note}, check_results=checks)
    facts = result.facts
    failed = [
        metadata.failed_rule("refit", rule["rule"], None, [], rule["reason"])
        for rule in facts["rules"]
        if not rule["passed"]
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(facts["bundle"]),
        metadata={
            "bundle": facts["bundle"],
            "parent": facts["parent"],
            "unchanged": not result.created,
            "rules": metadata.table(facts["rules"]),
            "seconds": metadata.table([facts["seconds"]]),
            "folder": dg.MetadataValue.path(result.folder),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=facts["approved"], check_name="sane", metadata=metadata.broken_rules(failed)
            )
        ],
    )


@dg.asset(group_name="evaluation", pool=POOL, deps=["final_model"], kinds={"json"}, tags={"layer": "model"})
def run_report(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One report of the last run, `reports/latest.json`: rows, checks, metrics, gate decision, seconds."""
    with translate_errors():
        found = steps.report(workspace.workspace(), step_seconds(context.instance, context.run.run_id))
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(workspace.workspace().home.report),
            "metrics": metadata.metrics(found, steps.SCORERS),
            **metadata.ladder(found),
        }
    )


@dg.asset(
    group_name="deployment",
    pool=POOL,
    deps=["online_features"],
    kinds={"bentoml"},
    tags={"layer": "serving"},
)
def served_features(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One release of the model that serves and the newest features, every night, though it is retrained every week."""
    from serving.release.release import facts_of

    with translate_errors():
        release, problem = steps.serve_features(workspace.workspace())
    if problem:
        context.log.warning(problem)
    if release is None:
        return dg.MaterializeResult(metadata={"note": problem or "no model serves yet"})
    note = problem or "the newest features serve"
    return dg.MaterializeResult(
        data_version=dg.DataVersion(release.name), metadata={"note": note, **facts_of(release)}
    )


@dg.asset(
    group_name="deployment",
    pool=POOL,
    deps=["final_model", "run_report", "online_features"],
    kinds={"bentoml"},
    tags={"layer": "serving"},
)
def deployed_model(context: dg.AssetExecutionContext, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """One release: the model that serves, with its features. Only a bundle whose own hash a gate approved gets here.

    A refused bundle, or one that a pin keeps out, leaves the model that serves, with today's features.
    """
    from serving.release.release import facts_of

    with translate_errors():
        deployed = steps.deploy(workspace.workspace())
    if deployed.held_back:
        context.log.warning(deployed.held_back)
    release = deployed.release
    return dg.MaterializeResult(
        data_version=dg.DataVersion(release.name if release else "none"),
        metadata={
            "note": deployed.held_back or f"model {deployed.bundle[:12]} serves",
            **({"folder": dg.MetadataValue.path(release.folder), **facts_of(release)} if release else {}),
            "another_model_served_before": deployed.changed,
            "seconds": metadata.table([dict(deployed.seconds)]),
        },
    )
