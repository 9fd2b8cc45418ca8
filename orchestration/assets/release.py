"""Release: the model that serves."""

import dagster as dg

from orchestration.assets import metadata
from orchestration.assets.failures import translate_errors
from orchestration.resources import WorkspaceResource


@dg.asset(
    group_name="deployment",
    deps=["gate_decision", "run_report", "online_features"],
    description="One pointer to the model that serves. Only a bundle whose own hash the gate approved gets here.",
    kinds={"bentoml"},
    owners=metadata.OWNERS,
    tags={"layer": "serving"},
)
def deployed_model(workspace: WorkspaceResource) -> dg.MaterializeResult:
    """Put the approved bundle into BentoML's model store, build a Bento, and point the service at it."""
    from orchestration.pipeline.release import deploy

    with translate_errors():
        deployed = deploy(workspace.workspace())
    return dg.MaterializeResult(
        data_version=dg.DataVersion(deployed.pointer.bundle),
        metadata={
            **vars(deployed.pointer),
            "another_model_served_before": deployed.changed,
            "seconds": metadata.table([dict(deployed.seconds)]),
        },
    )
