"""What Dagster loads: assets, checks, jobs, schedules, sensors and where they work."""

import os
from collections.abc import Mapping

import dagster as dg

from features.sources import COMPLETE_JOURNEY
from orchestration.assets.evaluation import gate_decision, model_evaluation, run_report
from orchestration.assets.features import feature_rows, online_features, training_examples
from orchestration.assets.ingestion import landed_tables
from orchestration.assets.release import deployed_model
from orchestration.assets.training import model_bundle, searched_recipe
from orchestration.assets.validation import checked_tables
from orchestration.automation.schedules import data_job, schedules, search_job, whole_job
from orchestration.automation.sensors import failed_checks, failed_runs
from orchestration.home import Home
from orchestration.resources import WorkspaceResource

ASSETS = (
    landed_tables,
    checked_tables,
    feature_rows,
    online_features,
    training_examples,
    model_bundle,
    model_evaluation,
    gate_decision,
    run_report,
    deployed_model,
)


def build_definitions(environ: Mapping[str, str]) -> dg.Definitions:
    """The definitions for the settings of an environment.

    Args:
        environ: RECOMMENDER_HOME, RECOMMENDER_SOURCE, RECOMMENDER_FEAST_URL, RECOMMENDER_RECIPE,
            RECOMMENDER_GATE and RECOMMENDER_UI_URL; each has a default but the Feast registry.
    """
    workspace = WorkspaceResource(
        home=str(Home.from_environment(environ).root),
        source=environ.get("RECOMMENDER_SOURCE") or str(COMPLETE_JOURNEY),
        registry_url=dg.EnvVar("RECOMMENDER_FEAST_URL"),
        recipe=environ.get("RECOMMENDER_RECIPE") or "",
        gate_rules=environ.get("RECOMMENDER_GATE") or "",
        ui=environ.get("RECOMMENDER_UI_URL") or "http://127.0.0.1:3000",
    )
    return dg.Definitions(
        assets=[*ASSETS, searched_recipe],
        jobs=[data_job, whole_job, search_job],
        schedules=schedules(environ),
        sensors=[failed_runs, failed_checks],
        resources={"workspace": workspace},
        executor=dg.multiprocess_executor.configured({"max_concurrent": 2}),
    )


defs = build_definitions(os.environ)
