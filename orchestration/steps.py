"""The steps of the whole job as plain functions: each calls its room, and does nothing twice.

Every result is named by a fingerprint of what it was made from; a step whose result is there already
returns it with `made=False`.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.errors import BundleError, SchemaError
from expectations.contracts.examples import ExampleSchema
from expectations.contracts.landing import (
    current,
    current_folder,
    file_hash,
    fingerprint,
    read_json,
    write_json,
)
from expectations.contracts.verdict import Verdict, write_verdict
from orchestration.workplace import Workplace

if TYPE_CHECKING:
    from expectations.suites.report import TableReport
    from features.parity import Parity
    from features.sources.landing import LandedTable
    from serving.deployment import Deployed


@dataclass(frozen=True, kw_only=True)
class Made:
    """A folder that a step made, or found made.

    Attributes:
        folder: the result.
        facts: what its pointer says.
        made: whether this call made it.
    """

    folder: Path
    facts: Mapping[str, Any]
    made: bool


def ingest(work: Workplace) -> "dict[str, LandedTable]":
    """Land the source's tables."""
    from features.sources.landing import ingest as land_source

    source = work.declaration()
    return land_source(
        source,
        work.source_path,
        tables_dir=work.place.tables / source.name,
        quarantine_dir=work.place.quarantine / source.name,
    )


def validate(work: Workplace) -> "dict[str, TableReport]":
    """Check the landed tables; what passes lands again as checked tables."""
    from expectations.suites.validate import validate as check_tables

    source = work.declaration()
    landed = _current_tables(work.place.tables / source.name)
    return check_tables(
        landed,
        source.contracts(),
        checked_dir=work.place.checked / source.name,
        quarantine_dir=work.place.quarantine / source.name,
        gx_dir=work.place.gx,
        now=datetime.now(UTC).replace(tzinfo=None),
    )


def build_features(work: Workplace) -> Made:
    """Compute the feature rows of every entity and moment."""
    from features.snapshots import build_snapshots

    source = work.declaration()
    dataset = work.place.features / source.name / "snapshots"
    checked = _current_tables(work.place.checked / source.name)
    facts, made = build_snapshots(source, checked, dataset)
    return Made(folder=dataset / facts["version"], facts=facts, made=made)


def fill_online_store(work: Workplace) -> Made:
    """Apply the Feast repo and bring the latest feature rows into the online store."""
    from features.retrieval import apply_repo, materialize, open_store

    settings, snapshots = work.store_settings(), _snapshots(work)
    marker = settings.online_path.with_suffix(".json")
    done = read_json(marker) if marker.exists() and settings.online_path.exists() else {}
    facts = read_json(snapshots / "facts.json")
    store = open_store(settings)
    views = apply_repo(store, snapshots)
    made = done.get("version") != snapshots.name
    if made:
        materialize(store, datetime.fromisoformat(facts["horizon"]))
        write_json(marker, {"version": snapshots.name})
    return Made(folder=snapshots, facts={**facts, "views": views}, made=made)


def compare_stores(work: Workplace) -> "Parity":
    """Compare online with offline features of a sample of shoppers."""
    from features.parity import compare_stores as compare
    from features.retrieval import open_store

    snapshots = _snapshots(work)
    horizon = datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"])
    return compare(open_store(work.store_settings()), snapshots, horizon)


def build_examples(work: Workplace) -> Made:
    """Join the exposures with their features, point in time."""
    from features.examples import build_examples as join
    from features.retrieval import open_store

    source, snapshots = work.declaration(), _snapshots(work)
    horizon = datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"])
    dataset = work.place.examples / source.name
    checked = _current_tables(work.place.checked / source.name)
    store = open_store(work.store_settings())
    facts, made = join(source, checked, snapshots, dataset, store, horizon)
    return Made(folder=dataset / facts["version"], facts=facts, made=made)


def train(work: Workplace) -> Made:
    """Fit a bundle to the current examples, or take the one that was fitted to them."""
    from training.fit import fit
    from training.recipe import read_recipe

    examples = current_folder(work.place.examples / work.declaration().name)
    recipe = read_recipe(Path(work.recipe) if work.recipe else None)
    folder = work.place.training / work.declaration().name
    version = fingerprint(ExampleSchema.read(examples).fingerprint, recipe.as_dict(), _code("training"))
    pointer = folder / "current.json"
    known = read_json(pointer) if pointer.exists() else {}
    if known.get("version") == version and _is_whole(work.place.bundles / known["bundle"]):
        return Made(folder=work.place.bundles / known["bundle"], facts=known, made=False)
    result = fit(
        examples,
        recipe,
        out=work.place.bundles,
        work=folder / "checkpoints" / version,
        log_dir=folder / "tensorboard" / version,
    )
    facts = {
        "version": version,
        "bundle": result.hash,
        "metrics": result.metrics,
        "history": result.history,
        "seconds": result.seconds,
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


def champion(work: Workplace, challenger: str) -> Path | None:
    """The bundle that serves now, if it is of this source, whole, and not the challenger itself."""
    pointer = work.place.deployment
    deployed = read_json(pointer) if pointer.exists() else {}
    folder = work.place.bundles / str(deployed.get("bundle"))
    if deployed.get("bundle") in (None, challenger) or not _is_whole(folder):
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


def report(work: Workplace, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Write `reports/latest.json`: what the run came to, for people and their scripts."""
    from expectations.contracts.verdict import read_verdict

    source = work.declaration()
    _, _, digest = trained_bundle(work)
    evaluation = read_json(work.place.evaluations / f"{digest}.json")
    verdict = read_verdict(work.place.verdicts, digest)
    tables = validate(work)
    checks = [check for table in tables.values() for check in table.checks]
    failed = [check for check in checks if not check.passed]
    found = {
        "source": source.name,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bundle": digest,
        "before": evaluation["before"],
        "test": evaluation["test"],
        "baseline": evaluation["baseline"],
        "popularity": evaluation["popularity"],
        "intervals": evaluation["intervals"],
        "gate": {"approved": verdict.approved, "rules": [vars(rule) for rule in verdict.rules]},
        "tables": {
            name: {"rows": table.num_rows, "quarantined": _num_quarantined(work, name)}
            for name, table in tables.items()
        },
        "checks": {
            "passed": len(checks) - len(failed),
            "warned": sum(check.severity == "warning" for check in failed),
            "failed": sum(check.severity == "critical" for check in failed),
        },
        "demo_users": _demo_users(work),
        "seconds": dict(seconds),
    }
    write_json(work.place.report, found)
    return found


def _num_quarantined(work: Workplace, table: str) -> int:
    """Rows of a table that are in quarantine, by whichever stage."""
    import pyarrow.parquet as pq

    folder = work.place.quarantine / work.declaration().name / table
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def _demo_users(work: Workplace) -> list[str]:
    """Three shoppers of the latest exposures: with much, some and little history."""
    import pandas as pd

    examples = current_folder(work.place.examples / work.declaration().name)
    columns = ["user_id", "event_timestamp", "user_num_events"]
    rows = pd.read_parquet(examples / "rows.parquet", columns=columns)
    latest = (
        rows.sort_values(["event_timestamp", "user_id"]).drop_duplicates("user_id", keep="last").tail(100)
    )
    ordered = latest.sort_values(["user_num_events", "user_id"], ascending=False)["user_id"].tolist()
    return list(dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]]))


def _current_tables(folder: Path) -> dict[str, Path]:
    datasets = [path for path in sorted(folder.glob("*")) if current(path) is not None]
    if not datasets:
        raise SchemaError(f"nothing has landed in {folder}; run the ingestion first")
    return {dataset.name: current_folder(dataset) for dataset in datasets}


def _snapshots(work: Workplace) -> Path:
    return current_folder(work.place.features / work.declaration().name / "snapshots")


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
    folder = Path(__file__).resolve().parents[1] / room
    return fingerprint(*(file_hash(path) for path in sorted(folder.rglob("*.py"))))


def deploy(work: Workplace) -> "Deployed":
    """Deploy the bundle that was trained last, if the gate approved that very bundle.

    Where it did not, the model that serves goes on, with today's features.
    """
    from expectations.contracts.errors import RejectedError
    from serving.deployment import DeploymentContext, refresh
    from serving.deployment import deploy as put_into_service

    bundle, _, _ = trained_bundle(work)
    snapshots, folder = _snapshots(work), work.place.deployment.parent
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
