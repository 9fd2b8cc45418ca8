"""From training examples to the model that serves: training, evaluation, gate, report, deployment."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.examples import ExampleSchema
from expectations.contracts.gate_decision import GateDecision, read_gate_decision, write_gate_decision
from expectations.errors import BundleError
from expectations.storage.atomic import read_json, write_json, write_text
from expectations.storage.datasets import current_folder
from expectations.storage.hashes import file_hash, fingerprint
from orchestration.pipeline.data import StepResult, store_folder, validate
from orchestration.pipeline.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from serving.release.deployment import Deployed, DeploymentContext
    from serving.release.release import Release


SCORERS = ("zero_shot", "model", "lightgbm", "logistic_regression", "popularity", "constant", "champion")
LADDER = ("ladder", "proposal", "proposal_reason", "left_out")
"""Parts of an evaluation that a report takes over."""


def train(workspace: Workspace, *, full: bool = False) -> StepResult:
    """Fit a bundle to the current examples, or take the one that was fitted to them.

    It begins with the model that serves now, if that fits; from scratch where it does not, or where `full`.
    """
    from training.config.recipe import read_recipe
    from training.pipeline.fit import fit

    examples = current_folder(workspace.home.examples / workspace.source().name)
    recipe = read_recipe(workspace.recipe)
    folder = workspace.home.training / workspace.source().name
    version = fingerprint(ExampleSchema.read(examples).fingerprint, recipe.as_dict(), _code("training"))
    pointer = folder / "current.json"
    known = read_json(pointer) if pointer.exists() else {}
    wanted = known.get("version") == version and not (full and known.get("consecutive_warm_starts"))
    if wanted and _is_whole(workspace.home.bundles / known["bundle"]):
        return StepResult(folder=workspace.home.bundles / known["bundle"], facts=known, created=False)
    result = fit(
        examples,
        recipe,
        out=workspace.home.bundles,
        work=folder / "checkpoints" / version,
        log_dir=folder / "tensorboard" / version,
        champion=None if full else champion(workspace),
    )
    facts = {
        "version": version,
        "bundle": result.hash,
        "metrics": result.metrics,
        "history": result.history,
        "seconds": result.seconds,
        "initialization": result.initialization,
        "consecutive_warm_starts": result.consecutive_warm_starts,
        "metric": recipe.early_stopping.metric,
        "log_dir": str(folder / "tensorboard" / version),
    }
    write_json(pointer, facts)
    shutil.rmtree(folder / "checkpoints" / version, ignore_errors=True)
    return StepResult(folder=result.bundle, facts=facts, created=True)


def trained_bundle(workspace: Workspace) -> tuple[Path, Manifest, str]:
    """The bundle that was trained last, its manifest and its hash, after comparing every file."""
    pointer = read_json(workspace.home.training / workspace.source().name / "current.json")
    folder = workspace.home.bundles / pointer["bundle"]
    manifest, digest = verify_bundle(folder)
    return folder, manifest, digest


def search(workspace: Workspace, *, trials: int, space: str) -> tuple[Path, dict[str, Any]]:
    """Search for a better recipe on the current examples; goes on where the same search was stopped.

    Returns:
        The best recipe's file, where the workspace's recipe may point to, and the summary of the search.
    """
    from training.config.recipe import read_recipe
    from training.hpo.search import search as try_recipes

    examples = current_folder(workspace.home.examples / workspace.source().name)
    recipe = read_recipe(workspace.recipe)
    chosen = Path(space) if space else None
    text = chosen.read_text(encoding="utf-8") if chosen and chosen.is_file() else space
    version = fingerprint(ExampleSchema.read(examples).fingerprint, recipe.as_dict(), text, _code("training"))
    out = workspace.home.training / workspace.source().name / "search" / version
    summary = try_recipes(examples, recipe, space=chosen, out=out, trials=trials)
    best = workspace.home.recipes / f"{workspace.source().name}.toml"
    write_text(best, Path(summary["best"]["recipe"]).read_text(encoding="utf-8"))
    return best, summary


def champion(workspace: Workspace, challenger: str | None = None) -> Path | None:
    """The evaluated bundle behind what serves now, if it is of this source, whole, and not the challenger itself.

    What serves is its refit to all known rows. That has seen the test rows, so it is neither compared nor begun with.
    """
    serving = workspace.home.bundles / str(_deployed(workspace).get("bundle"))
    if not _is_whole(serving):
        return None
    manifest, _ = verify_bundle(serving)
    folder = serving.with_name(manifest.parent) if manifest.parent else serving
    if manifest.source != workspace.source().name or folder.name == challenger or not _is_whole(folder):
        return None
    return folder


def evaluate(workspace: Workspace) -> tuple[dict[str, Any], bool]:
    """Measure the trained bundle on the test part, beside its rivals; whether it was measured now."""
    from training.evaluation.evaluate import evaluate as measure

    bundle, _, digest = trained_bundle(workspace)
    examples = current_folder(workspace.home.examples / workspace.source().name)
    rival = champion(workspace, digest)
    version = fingerprint(examples.name, digest, rival.name if rival else None, _code("training"))
    path = workspace.home.evaluations / f"{digest}.json"
    known = read_json(path) if path.exists() else {}
    if known.get("version") == version or (known and champion(workspace) == bundle):
        return known, False
    found = {
        "version": version,
        **measure(bundle, examples, champion=rival, **_best_approved(workspace, rival)),
    }
    found["champion_problem"] = found["champion_problem"] or _lost_champion(workspace, digest)
    write_json(path, found)
    return found, True


def _best_approved(workspace: Workspace, rival: Path | None) -> dict[str, Any]:
    """The best model approved so far, where the champion was behind it when it was evaluated; and by how much."""
    from training.evaluation.gate import best_before, read_rules

    path = workspace.home.evaluations / f"{rival.name if rival else None}.json"
    if not path.exists():
        return {}
    name, shortfall = best_before(read_json(path), read_rules(workspace.gate_rules))
    folder = workspace.home.bundles / str(name)
    return {"best_approved": folder if _is_whole(folder) else None, "champion_shortfall": shortfall}


def _lost_champion(workspace: Workspace, digest: str) -> str | None:
    """Why what serves cannot be compared with, though it is of this source and another one than the challenger."""
    deployed, source = _deployed(workspace), workspace.source().name
    if deployed.get("project") != source or deployed.get("bundle") == digest or champion(workspace):
        return None
    return (
        f"the champion cannot score these rows: its bundle {deployed['bundle'][:12]} in {workspace.home.bundles} is "
        "incomplete or was removed"
    )


def decide(workspace: Workspace) -> GateDecision:
    """The gate's decision on the trained bundle, written down for that very hash."""
    from training.evaluation.gate import gate_decision, read_rules

    _, _, digest = trained_bundle(workspace)
    evaluation = read_json(workspace.home.evaluations / f"{digest}.json")
    rules = read_rules(workspace.gate_rules)
    decision = gate_decision(evaluation, rules, digest)
    write_gate_decision(workspace.home.gate_decisions, decision)
    return decision


def refit(workspace: Workspace) -> StepResult | None:
    """Fit the approved recipe once more, to all known rows, and let the sanity gate decide on it.

    Returns:
        The bundle that is to serve, or the one that was made before; None where the gate refused its parent.
    """
    from training.config.recipe import recipe_from
    from training.evaluation.sanity import sanity_decision
    from training.pipeline.fit import fit

    parent, manifest, digest = trained_bundle(workspace)
    if not read_gate_decision(workspace.home.gate_decisions, digest).approved:
        return None
    examples = current_folder(workspace.home.examples / workspace.source().name)
    version = fingerprint(ExampleSchema.read(examples).fingerprint, digest, _code("training"))
    known = _final(workspace)
    created = known.get("version") != version or not _is_whole(workspace.home.bundles / known["bundle"])
    if created:
        work = workspace.home.training / workspace.source().name
        result = fit(
            examples,
            recipe_from(dict(manifest.recipe), where=f"{parent}/manifest.json"),
            out=workspace.home.bundles,
            work=work / "checkpoints" / version,
            log_dir=work / "tensorboard" / version,
            champion=workspace.home.bundles / manifest.champion if manifest.champion else None,
            parent=parent,
        )
        known = {"version": version, "bundle": result.hash, "parent": digest, "seconds": result.seconds}
        write_json(_final_pointer(workspace), known)
        shutil.rmtree(work / "checkpoints" / version, ignore_errors=True)
    folder = workspace.home.bundles / known["bundle"]
    if created or not (workspace.home.gate_decisions / f"{folder.name}.json").exists():
        write_gate_decision(workspace.home.gate_decisions, sanity_decision(folder, parent, examples))
    decision = read_gate_decision(workspace.home.gate_decisions, folder.name)
    return StepResult(folder=folder, facts={**known, **_as_facts(decision)}, created=created)


def report(workspace: Workspace, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Write `reports/latest.json`: what the run came to, with the wall time of its steps."""
    import pandas as pd
    import pyarrow.parquet as pq

    home, source = workspace.home, workspace.source()
    _, _, digest = trained_bundle(workspace)
    evaluation = read_json(home.evaluations / f"{digest}.json")
    decision = read_gate_decision(home.gate_decisions, digest)
    tables = validate(workspace)
    checks = [check for table in tables.values() for check in table.checks]
    failed = [check for check in checks if not check.passed]
    quarantined = {
        name: sum(
            pq.read_metadata(path).num_rows
            for path in (home.quarantine / source.name / name).glob("*.parquet")
        )
        for name in tables
    }
    examples = current_folder(home.examples / source.name)
    rows = pd.read_parquet(
        examples / "rows.parquet", columns=["user_id", "event_timestamp", "user_num_events"]
    )
    found = {
        "source": source.name,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": digest,
        **{name: evaluation[name] for name in (*SCORERS, "intervals", *LADDER)},
        "gate": _as_facts(decision),
        "refit": _refit_facts(workspace, decision),
        **_pin_facts(workspace),
        "tables": {
            name: {"rows": table.num_rows, "quarantined": quarantined[name]} for name, table in tables.items()
        },
        "checks": {
            "passed": len(checks) - len(failed),
            "warned": sum(check.severity == "warning" for check in failed),
            "failed": sum(check.severity == "critical" for check in failed),
        },
        "demo_users": _demo_users(rows),
        "seconds": dict(seconds),
    }
    write_json(home.report, found)
    return found


def deploy(workspace: Workspace) -> "Deployed":
    """Deploy the refit of the bundle that was trained last, if the gate approved that, and the sanity gate the refit.

    Where they did not, or another model is pinned, the model that serves goes on, with today's features.

    Raises:
        RejectedError: there is no decision on it, or its approval is withdrawn at this moment.
    """
    from serving.release.deployment import Deployed
    from serving.release.deployment import deploy as put_into_service

    bundle, decision = _candidate(workspace)
    folder, context = workspace.home.deployment.parent, _deployment_context(workspace)
    if decision.approved:
        return put_into_service(
            bundle, gate_decisions=workspace.home.gate_decisions, deployment=folder, context=context
        )
    release, problem = serve_features(workspace)
    goes_on = problem or (f"model {release.bundle[:12]} goes on" if release else "no model serves")
    held_back = f"nothing was deployed: {decision.refusal}; {goes_on}"
    return Deployed(bundle=decision.bundle, release=release, held_back=held_back)


def serve_features(workspace: Workspace) -> "tuple[Release | None, str]":
    """Let the model that serves read the newest features, if they have what it wants.

    Returns:
        What serves, None where no model does; and why it goes on with the features that it had, if it does.
    """
    from serving.release.deployment import refresh
    from serving.release.pointer import current_release

    folder = workspace.home.deployment.parent
    try:
        return refresh(folder, _deployment_context(workspace)), ""
    except BundleError as error:
        release = current_release(folder)
        since = f"goes on with the features of {release.horizon}" if release else "does not serve"
        return release, f"the model {since}: {error}"


def _deployment_context(workspace: Workspace) -> "DeploymentContext":
    from serving.api.loading import check
    from serving.release.deployment import DeploymentContext

    return DeploymentContext(source=workspace.source_path, store=store_folder(workspace), check=check)


def _candidate(workspace: Workspace) -> tuple[Path, GateDecision]:
    """What is to serve, and the decision on it: the last bundle, or its refit where the gate approved that one."""
    bundle, _, digest = trained_bundle(workspace)
    decision, final = read_gate_decision(workspace.home.gate_decisions, digest), _final(workspace)
    if not decision.approved or final.get("parent") != digest:
        return bundle, decision
    refit = read_gate_decision(workspace.home.gate_decisions, final["bundle"])
    return workspace.home.bundles / final["bundle"], refit


def _pin_facts(workspace: Workspace) -> dict[str, Any]:
    """Of the report: the pin, and the approved model that it keeps out, each None where there is none."""
    from serving.release.history import read_pin

    pin = read_pin(workspace.home.deployment.parent)
    if pin is None:
        return {"pin": None, "waiting": None}
    _, decision = _candidate(workspace)
    waits = decision.approved and decision.bundle != _deployed(workspace).get("bundle")
    return {"pin": asdict(pin), "waiting": decision.bundle if waits else None}


def _demo_users(rows: "pd.DataFrame") -> list[str]:
    """Three shoppers of the latest exposures: with much, some and little history."""
    latest = (
        rows.sort_values(["event_timestamp", "user_id"]).drop_duplicates("user_id", keep="last").tail(100)
    )
    ordered = latest.sort_values(["user_num_events", "user_id"], ascending=False)["user_id"].tolist()
    return list(dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]]))


def _final_pointer(workspace: Workspace) -> Path:
    return workspace.home.training / workspace.source().name / "final.json"


def _final(workspace: Workspace) -> dict[str, Any]:
    """What the pointer to the last refit says: version, bundle, parent, seconds; empty where there is none."""
    path = _final_pointer(workspace)
    return read_json(path) if path.exists() else {}


def _refit_facts(workspace: Workspace, decision: GateDecision) -> dict[str, Any] | None:
    """Of the report: which refit there is of an approved bundle, and what the sanity gate says; None without one."""
    final = _final(workspace)
    if not decision.approved or final.get("parent") != decision.bundle:
        return None
    sanity = read_gate_decision(workspace.home.gate_decisions, final["bundle"])
    return {"bundle": final["bundle"], "seconds": final["seconds"], **_as_facts(sanity)}


def _as_facts(decision: GateDecision) -> dict[str, Any]:
    """What a report says of a decision beside its bundle's hash."""
    facts = asdict(decision)
    del facts["bundle"], facts["created_at"]
    return facts


def _is_whole(bundle: Path) -> bool:
    try:
        verify_bundle(bundle)
    except BundleError:
        return False
    return True


def _deployed(workspace: Workspace) -> Mapping[str, Any]:
    """What the deployment's pointer says; empty where none is deployed."""
    return read_json(workspace.home.deployment) if workspace.home.deployment.exists() else {}


def _code(room: str) -> str:
    """Hash of a room's code: what older code made is not taken for what this code would make."""
    return fingerprint(
        *(file_hash(path) for path in sorted((Path(__file__).resolve().parents[2] / room).rglob("*.py")))
    )
