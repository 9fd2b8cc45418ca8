"""Jobs; schedules, when the system runs by itself; and sensors that turn failures into alerts."""

import os
from collections.abc import Iterator, Mapping

import dagster as dg
import psutil

from expectations.errors import TransientError
from orchestration.alerting import Alert, read_services, send
from orchestration.resources import WorkspaceResource, translate_errors
from orchestration.run_events import broken_rules, failure_reason, stopped_by_checks

INTERVAL_SECONDS = 30
INGESTION_CRON, RETRAINING_CRON = "0 3 * * *", "0 4 * * 0"

data_job = dg.define_asset_job(
    "data",
    selection=dg.AssetSelection.groups("ingestion", "validation"),
    description="Land and check the source's tables.",
)

whole_job = dg.define_asset_job(
    "recommender",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("searched_recipe"),
    description="Everything: ingestion, validation, features, fine-tuning, evaluation, gate, deployment.",
)

search_job = dg.define_asset_job(
    "search",
    selection=dg.AssetSelection.assets("searched_recipe"),
    description="Many trials for a better recipe on the current examples; on demand only.",
)


class Rollback(dg.Config):
    """What is to serve again.

    Attributes:
        bundle: how its hash begins; empty: the model before the one that serves.
        reason: why, for those who ask later.
    """

    bundle: str = ""
    reason: str = ""


@dg.op
def restored_model(context: dg.OpExecutionContext, config: Rollback, workspace: WorkspaceResource) -> None:
    """Let an earlier model serve again, and pin it."""
    from serving.release.deployment import rollback

    with translate_errors():
        home = workspace.workspace().home
        pointer = rollback(
            home.deployment.parent,
            gate_decisions=home.gate_decisions,
            who=psutil.Process().username(),
            reason=config.reason,
            to=config.bundle,
        )
    note = (
        f"rolled back to model {pointer.bundle[:12]}, which is pinned: {config.reason or 'no reason given'}"
    )
    context.log.info(note)
    context.log_event(dg.AssetMaterialization("deployed_model", metadata={"note": note, **vars(pointer)}))


@dg.op
def lifted_pin(context: dg.OpExecutionContext, workspace: WorkspaceResource) -> None:
    """Let the next run deploy the approved model."""
    from serving.release.deployment import unpin

    with translate_errors():
        lifted = unpin(workspace.workspace().home.deployment.parent, who=psutil.Process().username())
    context.log.info("the pin is lifted" if lifted else "no model is pinned")


@dg.job(
    name="rollback",
    executor_def=dg.in_process_executor,
    description="Let the model before serve again, or the one that `bundle` names, and pin it: on demand, at once.",
)
def rollback_job() -> None:
    """Restore a model."""
    restored_model()


@dg.job(
    name="unpin",
    executor_def=dg.in_process_executor,
    description="Lift the pin of a rollback: the next run deploys the approved model.",
)
def unpin_job() -> None:
    """Lift the pin."""
    lifted_pin()


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


@dg.run_failure_sensor(
    name="failed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    description="Tells by webhook and e-mail of every failed run, with the checks that stopped it.",
)
def failed_runs(context: dg.RunFailureSensorContext, workspace: WorkspaceResource) -> None:
    """Send what a failed run broke on."""
    run, link = context.dagster_run, _link(context, workspace)
    alerts = list(_failed_checks(context, link))
    for event in context.get_step_failure_events():
        if event.step_key and not stopped_by_checks(event):
            title = f"step {event.step_key} of job {run.job_name} failed"
            alerts.append(Alert(title=title, link=link, detail=failure_reason(event)))
    reason = context.failure_event.message or ""
    _send(alerts or [Alert(title=f"job {run.job_name} failed", link=link, detail=reason)])


@dg.run_status_sensor(
    name="failed_checks",
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    description="Tells by webhook and e-mail of error-level checks that failed in a run which ended well.",
)
def failed_checks(context: dg.RunStatusSensorContext, workspace: WorkspaceResource) -> None:
    """Send the failed checks of a run that itself succeeded."""
    _send(list(_failed_checks(context, _link(context, workspace))))


def _link(context: dg.RunStatusSensorContext, workspace: WorkspaceResource) -> str:
    return f"{workspace.ui}/runs/{context.dagster_run.run_id}"


def _send(alerts: list[Alert]) -> None:
    if not alerts:
        return
    try:
        send(alerts, read_services(os.environ))
    except TransientError as error:
        raise dg.Failure(description=str(error)) from error


def _failed_checks(context: dg.RunStatusSensorContext, link: str) -> Iterator[Alert]:
    """One alert for each broken rule of each failed check of a run, errors only."""
    kind, run_id = dg.DagsterEventType.ASSET_CHECK_EVALUATION, context.dagster_run.run_id
    for record in context.instance.get_records_for_run(run_id, of_type=kind).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        check = event.asset_check_evaluation_data
        if check.passed or check.severity != dg.AssetCheckSeverity.ERROR:
            continue
        asset, broken = check.asset_key.to_user_string(), broken_rules(event)
        if not broken:
            yield Alert(
                title=f"check {check.check_name} failed", table=asset, rule=check.check_name, link=link
            )
        for rule in broken:
            yield Alert(
                title=f"check {check.check_name} failed on {asset}",
                table=rule["table"],
                rule=rule["rule"],
                num_rows=rule["rows"],
                sample=rule["sample"],
                link=link,
                detail=rule["message"],
            )
