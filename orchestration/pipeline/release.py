"""Release: the approved bundle goes into service."""

from datetime import datetime
from typing import TYPE_CHECKING

from expectations.storage.atomic import read_json
from orchestration.pipeline.data import snapshots_folder
from orchestration.pipeline.model import trained_bundle
from orchestration.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from serving.release.deployment import Deployed


def deploy(workspace: Workspace) -> "Deployed":
    """Deploy the bundle that was trained last, if the gate approved that very bundle.

    Where it did not, the model that serves goes on, with today's features.
    """
    from expectations.errors import RejectedError
    from serving.release.deployment import DeploymentContext, refresh
    from serving.release.deployment import deploy as put_into_service

    bundle, _, _ = trained_bundle(workspace)
    snapshots, folder = snapshots_folder(workspace), workspace.home.deployment.parent
    context = DeploymentContext(
        source=workspace.source_path,
        feature_rows=snapshots,
        online_store=workspace.store_settings().online_path,
        horizon=datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"]),
    )
    try:
        return put_into_service(
            bundle, gate_decisions=workspace.home.gate_decisions, deployment=folder, context=context
        )
    except RejectedError:
        serving = read_json(workspace.home.deployment) if workspace.home.deployment.exists() else {}
        if serving.get("project") == workspace.source().name:
            refresh(folder, context)
        raise
