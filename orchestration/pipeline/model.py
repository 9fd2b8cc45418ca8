"""Training, evaluation and the gate: from training examples to a decision on one bundle."""

import shutil
from pathlib import Path
from typing import Any

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.examples import ExampleSchema
from expectations.contracts.gate_decision import GateDecision, write_gate_decision
from expectations.errors import BundleError
from expectations.storage.atomic import read_json, write_json, write_text
from expectations.storage.datasets import current_folder
from expectations.storage.hashes import file_hash, fingerprint
from orchestration.pipeline.data import StepResult
from orchestration.pipeline.workspace import Workspace


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
    """The bundle that serves now, if it is of this source, whole, and not the challenger itself."""
    pointer = workspace.home.deployment
    deployed = read_json(pointer) if pointer.exists() else {}
    folder = workspace.home.bundles / str(deployed.get("bundle"))
    if "bundle" not in deployed or deployed["bundle"] == challenger or not _is_whole(folder):
        return None
    manifest, _ = verify_bundle(folder)
    return folder if manifest.source == workspace.source().name else None


def evaluate(workspace: Workspace) -> tuple[dict[str, Any], bool]:
    """Measure the trained bundle on the test part, beside its rivals; whether it was measured now."""
    from training.evaluation.evaluate import evaluate as measure

    bundle, _, digest = trained_bundle(workspace)
    examples = current_folder(workspace.home.examples / workspace.source().name)
    rival = champion(workspace, digest)
    version = fingerprint(examples.name, digest, rival.name if rival else None, _code("training"))
    path = workspace.home.evaluations / f"{digest}.json"
    known = read_json(path) if path.exists() else {}
    if known.get("version") == version or (known and rival is None and _is_deployed(workspace, digest)):
        return known, False
    found = {"version": version, **measure(bundle, examples, champion=rival)}
    write_json(path, found)
    return found, True


def decide(workspace: Workspace) -> GateDecision:
    """The gate's decision on the trained bundle, written down for that very hash."""
    from training.evaluation.gate import gate_decision, read_rules

    _, _, digest = trained_bundle(workspace)
    evaluation = read_json(workspace.home.evaluations / f"{digest}.json")
    rules = read_rules(workspace.gate_rules)
    decision = gate_decision(evaluation, rules, digest)
    write_gate_decision(workspace.home.gate_decisions, decision)
    return decision


def _is_whole(bundle: Path) -> bool:
    try:
        verify_bundle(bundle)
    except BundleError:
        return False
    return True


def _is_deployed(workspace: Workspace, digest: str) -> bool:
    return workspace.home.deployment.exists() and read_json(workspace.home.deployment).get("bundle") == digest


def _code(room: str) -> str:
    """Hash of a room's code: what older code made is not taken for what this code would make."""
    return fingerprint(
        *(file_hash(path) for path in sorted((Path(__file__).resolve().parents[2] / room).rglob("*.py")))
    )
