"""Training: a bundle fitted to the examples, and the search for a better recipe."""

import dagster as dg

from orchestration.assets import metadata
from orchestration.assets.failures import translate_errors
from orchestration.resources import WorkspaceResource

NUM_TRIALS = 30


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
    owners=metadata.OWNERS,
    tags={"layer": "model"},
)
def model_bundle(
    context: dg.AssetExecutionContext, config: Training, workspace: WorkspaceResource
) -> dg.MaterializeResult:
    """Fit a bundle, resuming where a killed run stopped."""
    from orchestration.pipeline import model as steps
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
            "tensorboard": dg.MetadataValue.path(facts["log_dir"]),
            "folder": dg.MetadataValue.path(result.folder),
        },
    )


@dg.asset(
    group_name="training",
    deps=["training_examples"],
    description="One recipe: the best of many trials, measured on the validation part. The job `search` makes it; "
    "trainings take it where RECOMMENDER_RECIPE names its file.",
    kinds={"optuna", "pytorch"},
    owners=metadata.OWNERS,
    tags={"layer": "model"},
)
def searched_recipe(config: Search, workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Search for a better recipe, going on where a killed search stopped."""
    from orchestration.pipeline import model as steps

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
