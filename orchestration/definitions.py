"""What Dagster loads: assets, checks, jobs, schedules, sensors and where they work."""

import os
from collections.abc import Mapping

import dagster as dg

from expectations.storage.memory import VARIABLE
from expectations.telemetry import switch_off
from features.sources import COMPLETE_JOURNEY
from orchestration.assets.features import feature_rows, online_features, training_examples
from orchestration.assets.model import (
    deployed_model,
    final_model,
    gate_decision,
    model_bundle,
    model_evaluation,
    run_report,
    searched_recipe,
    served_features,
)
from orchestration.assets.tables import checked_tables, landed_tables
from orchestration.automation import (
    AlertingResource,
    alert_delivery,
    data_job,
    finished_runs,
    rollback_job,
    schedules,
    search_job,
    unpin_job,
    whole_job,
)
from orchestration.environment import RETENTION_DAYS, keep_from_children
from orchestration.execution.executor import in_turn
from orchestration.home import Home
from orchestration.resources import WorkspaceResource

OWNERS = ["team:recommendations"]
ASSETS = (
    landed_tables,
    checked_tables,
    feature_rows,
    online_features,
    served_features,
    training_examples,
    model_bundle,
    model_evaluation,
    gate_decision,
    final_model,
    run_report,
    deployed_model,
)

PRELOADED = [__name__, "feast", "great_expectations", "training.pipeline.fit", "training.evaluation.evaluate"]
"""What steps import, once for all steps of a run: they are forked from a process that has done so."""


def build_definitions(environ: Mapping[str, str]) -> dg.Definitions:
    """The definitions for the settings of an environment.

    Args:
        environ: RECOMMENDER_HOME, RECOMMENDER_SOURCE, RECOMMENDER_DAGSTER_URL, RECOMMENDER_RECIPE, RECOMMENDER_GATE,
            RECOMMENDER_MEMORY, RECOMMENDER_RETENTION_DAYS, RECOMMENDER_MAX_RUN_HOURS and RECOMMENDER_UI_URL; each has
            a default but the database.
    """
    home = Home.from_environment(environ)
    steps = dg.multiprocess_executor.configured(
        {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": PRELOADED}}}
    )
    workspace = WorkspaceResource(
        home=str(home.root),
        source=environ.get("RECOMMENDER_SOURCE") or str(COMPLETE_JOURNEY),
        recipe=environ.get("RECOMMENDER_RECIPE") or "",
        gate_rules=environ.get("RECOMMENDER_GATE") or "",
        memory=environ.get(VARIABLE) or "",
        retention_days=environ.get(RETENTION_DAYS) or "",
    )
    alerting = AlertingResource(
        url=dg.EnvVar("RECOMMENDER_DAGSTER_URL"),
        ui=environ.get("RECOMMENDER_UI_URL") or "http://127.0.0.1:3000",
    )
    return dg.Definitions(
        assets=[
            asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=OWNERS))
            for asset in (*ASSETS, searched_recipe)
        ],
        jobs=[data_job(environ), whole_job, search_job, rollback_job, unpin_job],
        schedules=schedules(environ),
        sensors=[finished_runs, alert_delivery],
        resources={"workspace": workspace, "alerting": alerting},
        executor=in_turn(home.queue, steps),
    )


# a plain `dagster dev` does not come by `python -m orchestration`
switch_off(os.environ)
os.umask(0o077)
keep_from_children(os.environ)
defs = build_definitions(os.environ)
