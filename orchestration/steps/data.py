"""From a shop's raw data to training examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.contracts.errors import SchemaError
from expectations.contracts.landing import current, current_folder, read_json, write_json
from orchestration.workplace import Workplace

if TYPE_CHECKING:
    from expectations.suites.report import TableReport
    from features.parity import Parity
    from features.sources.landing import LandedTable


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
    landed = current_tables(work.place.tables / source.name)
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
    checked = current_tables(work.place.checked / source.name)
    facts, made = build_snapshots(source, checked, dataset)
    return Made(folder=dataset / facts["version"], facts=facts, made=made)


def fill_online_store(work: Workplace) -> Made:
    """Apply the Feast repo and bring the latest feature rows into the online store."""
    from features.retrieval import apply_repo, materialize, open_store

    settings, snapshots = work.store_settings(), snapshots_folder(work)
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

    snapshots = snapshots_folder(work)
    horizon = datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"])
    return compare(open_store(work.store_settings()), snapshots, horizon)


def build_examples(work: Workplace) -> Made:
    """Join the exposures with their features, point in time."""
    from features.examples import build_examples as join
    from features.retrieval import open_store

    source, snapshots = work.declaration(), snapshots_folder(work)
    horizon = datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"])
    dataset = work.place.examples / source.name
    checked = current_tables(work.place.checked / source.name)
    store = open_store(work.store_settings())
    facts, made = join(source, checked, snapshots, dataset, store, horizon)
    return Made(folder=dataset / facts["version"], facts=facts, made=made)


def current_tables(folder: Path) -> dict[str, Path]:
    """The current version of every dataset in a folder, by name."""
    datasets = [path for path in sorted(folder.glob("*")) if current(path) is not None]
    if not datasets:
        raise SchemaError(f"nothing has landed in {folder}; run the ingestion first")
    return {dataset.name: current_folder(dataset) for dataset in datasets}


def snapshots_folder(work: Workplace) -> Path:
    """The current version of the source's feature rows."""
    return current_folder(work.place.features / work.declaration().name / "snapshots")
