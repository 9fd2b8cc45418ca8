"""From training examples to the model that serves."""

import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.errors import BundleError
from expectations.contracts.examples import ExampleSchema
from expectations.contracts.landing import (
    current_folder,
    file_hash,
    fingerprint,
    read_json,
    write_json,
    write_text,
)
from expectations.contracts.verdict import Verdict, write_verdict
from orchestration.instance import PROJECT
from orchestration.steps.data import Made, snapshots_folder
from orchestration.workplace import Workplace

if TYPE_CHECKING:
    from serving.deployment import Deployed


def train(work: Workplace, *, full: bool = False) -> Made:
    """Fit a bundle to the current examples, or take the one that was fitted to them.

    It begins with the model that serves now, if that fits; from scratch where it does not, or where `full`.
    """
    from training.fit import fit
    from training.recipe import read_recipe

    examples = current_folder(work.place.examples / work.declaration().name)
    recipe = read_recipe(Path(work.recipe) if work.recipe else None)
    folder = work.place.training / work.declaration().name
    version = fingerprint(ExampleSchema.read(examples).fingerprint, recipe.as_dict(), _code("training"))
    pointer = folder / "current.json"
    known = read_json(pointer) if pointer.exists() else {}
    wanted = known.get("version") == version and not (full and known.get("warm_starts"))
    if wanted and _is_whole(work.place.bundles / known["bundle"]):
        return Made(folder=work.place.bundles / known["bundle"], facts=known, made=False)
    result = fit(
        examples,
        recipe,
        out=work.place.bundles,
        work=folder / "checkpoints" / version,
        log_dir=folder / "tensorboard" / version,
        champion=None if full else champion(work),
    )
    facts = {
        "version": version,
        "bundle": result.hash,
        "metrics": result.metrics,
        "history": result.history,
        "seconds": result.seconds,
        "start": result.start,
        "warm_starts": result.warm_starts,
        "metric": recipe.metric,
        "log_dir": str(folder / "tensorboard" / version),
    }
    write_json(pointer, facts)
    shutil.rmtree(folder / "checkpoints" / version, ignore_errors=True)
    return Made(folder=result.bundle, facts=facts, made=True)


def trained_bundle(work: Workplace) -> tuple[Path, Manifest, str]:
    """The bundle that was trained last, its manifest and its hash, after comparing every file."""
    pointer = read_json(work.place.training / work.declaration().name / "current.json")
    folder = work.place.bundles / pointer["bundle"]
    manifest, digest = verify_bundle(folder)
    return folder, manifest, digest


def search(work: Workplace, *, trials: int, space: str) -> tuple[Path, dict[str, Any]]:
    """Search for a better recipe on the current examples; goes on where the same search was stopped.

    Returns:
        The best recipe's file, where the workplace's recipe may point to, and the summary of the search.
    """
    from training.recipe import read_recipe
    from training.search import search as try_recipes

    examples = current_folder(work.place.examples / work.declaration().name)
    recipe = read_recipe(Path(work.recipe) if work.recipe else None)
    chosen = Path(space) if space else None
    text = chosen.read_text(encoding="utf-8") if chosen and chosen.is_file() else space
    version = fingerprint(ExampleSchema.read(examples).fingerprint, recipe.as_dict(), text, _code("training"))
    out = work.place.training / work.declaration().name / "search" / version
    found = try_recipes(examples, recipe, space=chosen, out=out, trials=trials)
    best = work.place.recipes / f"{work.declaration().name}.toml"
    write_text(best, found.recipe.read_text(encoding="utf-8"))
    return best, found.summary


def champion(work: Workplace, challenger: str | None = None) -> Path | None:
    """The bundle that serves now, if it is of this source, whole, and not the challenger itself."""
    pointer = work.place.deployment
    deployed = read_json(pointer) if pointer.exists() else {}
    folder = work.place.bundles / str(deployed.get("bundle"))
    if "bundle" not in deployed or deployed["bundle"] == challenger or not _is_whole(folder):
        return None
    manifest, _ = verify_bundle(folder)
    return folder if manifest.source == work.declaration().name else None


def evaluate(work: Workplace) -> tuple[dict[str, Any], bool]:
    """Measure the trained bundle on the test part, beside its rivals; whether it was measured now."""
    from training.evaluation import evaluate as measure

    bundle, _, digest = trained_bundle(work)
    examples = current_folder(work.place.examples / work.declaration().name)
    rival = champion(work, digest)
    version = fingerprint(examples.name, digest, rival.name if rival else None, _code("training"))
    path = work.place.evaluations / f"{digest}.json"
    known = read_json(path) if path.exists() else {}
    if known.get("version") == version or (known and rival is None and _is_deployed(work, digest)):
        return known, False
    found = {"version": version, **measure(bundle, examples, champion=rival)}
    write_json(path, found)
    return found, True


def judge(work: Workplace) -> Verdict:
    """The gate's verdict on the trained bundle, written down for that very hash."""
    from training.gate import judge as rule
    from training.gate import read_rules

    _, _, digest = trained_bundle(work)
    evaluation = read_json(work.place.evaluations / f"{digest}.json")
    rules = read_rules(Path(work.gate_rules) if work.gate_rules else None)
    verdict = rule(evaluation, rules, digest)
    write_verdict(work.place.verdicts, verdict)
    return verdict


def deploy(work: Workplace) -> "Deployed":
    """Deploy the bundle that was trained last, if the gate approved that very bundle.

    Where it did not, the model that serves goes on, with today's features.
    """
    from expectations.contracts.errors import RejectedError
    from serving.deployment import DeploymentContext, refresh
    from serving.deployment import deploy as put_into_service

    bundle, _, _ = trained_bundle(work)
    snapshots, folder = snapshots_folder(work), work.place.deployment.parent
    context = DeploymentContext(
        source=work.source_path,
        snapshots=snapshots,
        online_store=work.store_settings().online_path,
        horizon=datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"]),
    )
    try:
        return put_into_service(bundle, verdicts=work.place.verdicts, deployment=folder, context=context)
    except RejectedError:
        serving = read_json(work.place.deployment) if work.place.deployment.exists() else {}
        if serving.get("project") == work.declaration().name:
            refresh(folder, context)
        raise


def _is_whole(bundle: Path) -> bool:
    try:
        verify_bundle(bundle)
    except BundleError:
        return False
    return True


def _is_deployed(work: Workplace, digest: str) -> bool:
    return work.place.deployment.exists() and read_json(work.place.deployment).get("bundle") == digest


def _code(room: str) -> str:
    """Hash of a room's code: what older code made is not taken for what this code would make."""
    return fingerprint(*(file_hash(path) for path in sorted((PROJECT / room).rglob("*.py"))))
