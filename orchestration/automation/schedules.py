"""When the system runs again by itself."""

from collections.abc import Mapping

import dagster as dg

INGESTION_CRON, RETRAINING_CRON = "0 3 * * *", "0 4 * * 0"

data_job = dg.define_asset_job(
    "data",
    selection=dg.AssetSelection.groups("ingestion", "validation"),
    description="Land and check the source's tables.",
)
"""The data alone, every night."""

whole_job = dg.define_asset_job(
    "recommender",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("searched_recipe"),
    description="Everything: ingestion, validation, features, fine-tuning, evaluation, gate, deployment.",
)
"""Everything, every week: an approved model replaces the one that serves."""


search_job = dg.define_asset_job(
    "search",
    selection=dg.AssetSelection.assets("searched_recipe"),
    description="Many trials for a better recipe on the current examples; on demand only.",
)
"""A better recipe; nobody runs it by a clock, as it takes hours."""


def schedules(environ: Mapping[str, str]) -> list[dg.ScheduleDefinition]:
    """The schedules, switched on; RECOMMENDER_INGESTION_CRON and RECOMMENDER_RETRAINING_CRON move them."""
    return [
        dg.ScheduleDefinition(
            name="daily_ingestion",
            job=data_job,
            cron_schedule=environ.get("RECOMMENDER_INGESTION_CRON") or INGESTION_CRON,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Lands and checks new data every night (UTC).",
        ),
        dg.ScheduleDefinition(
            name="weekly_retraining",
            job=whole_job,
            cron_schedule=environ.get("RECOMMENDER_RETRAINING_CRON") or RETRAINING_CRON,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Retrains every Sunday (UTC); the gate decides whether the new model serves.",
        ),
    ]
