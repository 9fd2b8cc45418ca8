"""Jobs; schedules, when the system runs by itself; and sensors that turn failures into alerts and send them."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import psutil
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG

from orchestration.alerting.alert import Alert, Failure, RunOutcome
from orchestration.alerting.channels import read_services
from orchestration.alerting.outbox import Outbox
from orchestration.environment import max_run_seconds
from orchestration.resources import WorkspaceResource, translate_errors
from orchestration.run_events import broken_rules, error_class, failure_reason, stopped_by_checks

INTERVAL_SECONDS = 30
FIRST_LOOK = timedelta(days=1)
"""How far back runs are read the first time."""

OVERLAP = timedelta(hours=1)
"""What is read again each time: a run carries the time at which it ended, and may be written later."""

MAX_RUNS = 50
"""Runs read at a time."""

RUN = "run"
"""The subject of a failure that no step and no check tells of."""

INGESTION_CRON, RETRAINING_CRON = "0 3 * * *", "0 4 * * 0"

DATA_JOB, DATA_PART = "data", 4
"""The job that trains nothing; it may take this part of the time that a run may take."""


def data_job(environ: Mapping[str, str]) -> UnresolvedAssetJobDefinition:
    """Ingestion, validation and features, without a training.

    Raises:
        SettingError: the time that a run may take is set wrongly.
    """
    return dg.define_asset_job(
        DATA_JOB,
        selection=dg.AssetSelection.groups("ingestion", "validation", "features", "deployment")
        - dg.AssetSelection.assets("training_examples", "deployed_model"),
        description="Land and check the source's tables, and serve their features.",
        tags={MAX_RUNTIME_SECONDS_TAG: str(max_run_seconds(environ) // DATA_PART)},
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
    from serving.api.loading import check
    from serving.release.deployment import rollback
    from serving.release.release import facts_of

    with translate_errors():
        home = workspace.workspace().home
        release = rollback(
            home.deployment.parent,
            gate_decisions=home.gate_decisions,
            who=psutil.Process().username(),
            check=check,
            reason=config.reason,
            to=config.bundle,
        )
    note = (
        f"rolled back to model {release.bundle[:12]}, which is pinned: {config.reason or 'no reason given'}"
    )
    context.log.info(note)
    context.log_event(dg.AssetMaterialization("deployed_model", metadata={"note": note, **facts_of(release)}))


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
            job_name=DATA_JOB,
            cron_schedule=environ.get("RECOMMENDER_INGESTION_CRON") or INGESTION_CRON,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Lands and checks new data every night (UTC), and serves their features.",
        ),
        dg.ScheduleDefinition(
            name="weekly_retraining",
            job=whole_job,
            cron_schedule=environ.get("RECOMMENDER_RETRAINING_CRON") or RETRAINING_CRON,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Retrains every Sunday (UTC); the gate decides whether the new model serves.",
        ),
    ]


class AlertingResource(dg.ConfigurableResource):
    """Where alerts are kept, and where they link to.

    `url` is that of the outbox's database and has a password; `ui` is the address of Dagster's UI.
    """

    url: str
    ui: str = "http://127.0.0.1:3000"

    def outbox(self) -> Outbox:
        """The outbox, with its tables.

        Raises:
            TransientError: its database does not answer.
        """
        outbox = Outbox(url=self.url)
        outbox.create_tables()
        return outbox


@dg.sensor(
    name="finished_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    description="Writes down as alerts what failed, and what recovered, in every run that ended, whoever started it.",
)
def finished_runs(context: dg.SensorEvaluationContext, alerting: AlertingResource) -> dg.SkipReason:
    """Record the runs that ended since the cursor, the time of the last one that was read."""
    outbox, channels = alerting.outbox(), list(read_services(os.environ))
    now = datetime.now(UTC)
    cursor = datetime.fromisoformat(context.cursor) if context.cursor else now - FIRST_LOOK + OVERLAP
    ended = context.instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
            updated_after=cursor - OVERLAP,
        ),
        order_by="update_timestamp",
        ascending=True,
    )
    unread = outbox.unread([record.dagster_run.run_id for record in ended])
    records = [record for record in ended if record.dagster_run.run_id in unread][:MAX_RUNS]
    alerts = []
    for record in records:
        alerts += outbox.record(run_outcome(context.instance, record.dagster_run, alerting.ui), channels)
        cursor = max(cursor, record.update_timestamp)
    context.update_cursor(cursor.isoformat())
    return dg.SkipReason(f"{len(records)} runs ended, {len(alerts)} alerts")


@dg.sensor(
    name="alert_delivery",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS,
    description="Sends alerts by webhook, e-mail and whatever else is set, until each channel has them.",
)
def alert_delivery(alerting: AlertingResource) -> dg.SkipReason:
    """Send what is pending; a tick with a failed attempt fails, and says what is undelivered and why."""
    outbox = alerting.outbox()
    failed = outbox.deliver(read_services(os.environ))
    told = "; ".join(channel.text() for channel in outbox.undelivered())
    if failed:
        raise dg.Failure(description=told)
    return dg.SkipReason(told or "every channel has every alert")


def run_outcome(instance: dg.DagsterInstance, run: dg.DagsterRun, ui: str) -> RunOutcome:
    """How a finished run ended, by its event log; its page is under the address of Dagster's UI."""
    link, event_type = f"{ui}/runs/{run.run_id}", dg.DagsterEventType
    found: dict[str, list[Failure]] = {}  # subject -> its failures; what was said of it last counts
    passed, reason = set(), ""
    kinds = {
        event_type.ASSET_CHECK_EVALUATION,
        event_type.STEP_SUCCESS,
        event_type.STEP_FAILURE,
        event_type.RUN_FAILURE,
    }
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type == event_type.RUN_FAILURE:
            reason = event.message or ""
        elif event.event_type == event_type.ASSET_CHECK_EVALUATION:
            subject, failures = _check_failures(event, link)
            found[subject] = failures
            # a check that names its broken rules says that its other rules hold
            if not failures or broken_rules(event):
                passed.add(subject)
        elif event.event_type == event_type.STEP_SUCCESS:
            passed.add(f"step {event.step_key}")
        elif event.step_key and not stopped_by_checks(event):
            failure = _step_failure(event, run.job_name, link)
            found[failure.subject] = [failure]
    failures = [failure for of_subject in found.values() for failure in of_subject]
    if run.is_success:
        passed.add(RUN)
    elif not failures:
        alert = Alert(title=f"job {run.job_name} failed", link=link, detail=reason)
        failures = [Failure(subject=RUN, cause="", alert=alert)]
    # a run of the command line names all its steps; one from the step that failed on has a parent
    steps = run.parent_run_id and run.step_keys_to_execute
    partial = run.asset_selection or run.asset_check_selection or run.op_selection or steps
    return RunOutcome(
        run_id=run.run_id,
        job=run.job_name,
        link=link,
        failures=failures,
        passed=passed,
        succeeded=run.is_success and not partial,
    )


def _step_failure(event: dg.DagsterEvent, job: str, link: str) -> Failure:
    subject = f"step {event.step_key}"
    alert = Alert(title=f"{subject} of job {job} failed", link=link, detail=failure_reason(event))
    return Failure(subject=subject, cause=error_class(event), alert=alert)


def _check_failures(event: dg.DagsterEvent, link: str) -> tuple[str, list[Failure]]:
    """A check that was evaluated, and one failure for each rule that it names as broken, errors only."""
    check = event.asset_check_evaluation_data
    name, asset = check.check_name, check.asset_key.to_user_string()
    subject, title = f"check {name} on {asset}", f"check {name} failed on {asset}"
    if check.passed or check.severity != dg.AssetCheckSeverity.ERROR:
        return subject, []
    alerts = [
        Alert(
            title=title,
            table=rule["table"],
            rule=rule["rule"],
            num_rows=rule["rows"],
            sample=rule["sample"],
            link=link,
            detail=rule["message"],
        )
        for rule in broken_rules(event)
    ]
    alerts = alerts or [Alert(title=title, table=asset, rule=name, link=link)]
    return subject, [Failure(subject=subject, cause=alert.rule, alert=alert) for alert in alerts]
