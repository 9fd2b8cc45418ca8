"""From a shop's raw data to training examples."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.contracts.ledger import URL_VARIABLE, ledger_contracts
from expectations.errors import SchemaError, SettingError
from expectations.storage.atomic import read_json
from expectations.storage.datasets import current, current_folder
from expectations.storage.erasures import read_erased
from orchestration.pipeline.workspace import Workspace

if TYPE_CHECKING:
    from expectations.suites.report import TableReport
    from features.online.consistency import Consistency
    from features.sources.landing import LandedTable


_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step wrote, or found written.

    Attributes:
        folder: the result.
        facts: what its pointer says.
        created: whether this call wrote it.
    """

    folder: Path
    facts: Mapping[str, Any]
    created: bool


def ingest(workspace: Workspace) -> "dict[str, LandedTable]":
    """Land the source's tables; what the ledger has kept for long enough is removed before."""
    from features.sources.landing import ingest as land_source

    source = workspace.source()
    if workspace.retention_days:
        _forget_old(workspace, workspace.retention_days)
    return land_source(
        source,
        workspace.source_path,
        tables_dir=workspace.home.tables / source.name,
        quarantine_dir=workspace.home.quarantine / source.name,
        memory_limit=workspace.memory,
        mask=workspace.mask(),
        erased=lambda: read_erased(workspace.home.erasures, workspace.mask()),
    )


def _forget_old(workspace: Workspace, days: int) -> None:
    from serving.ledger.ledger import open_ledger

    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise SettingError(
            f"{URL_VARIABLE} is not set, so the ledger's old rows stay; give its database's URL"
        )
    contracts = ledger_contracts(workspace.source().contracts())
    with open_ledger(url, contracts, mask=workspace.mask()) as ledger:
        removed = ledger.forget_before(datetime.now(UTC) - timedelta(days=days))
    _log.info("the ledger forgot rows of more than %s days: %s", days, removed)


def validate(workspace: Workspace) -> "dict[str, TableReport]":
    """Check the landed tables; what passes lands again as checked tables."""
    from expectations.suites.run import validate as check_tables

    source = workspace.source()
    landed = current_tables(workspace.home.tables / source.name)
    return check_tables(
        landed,
        source.contracts(),
        checked_dir=workspace.home.checked / source.name,
        quarantine_dir=workspace.home.quarantine / source.name,
        gx_dir=workspace.home.gx,
        memory=workspace.memory,
        now=datetime.now(UTC).replace(tzinfo=None),
        mask=workspace.mask(),
    )


def build_features(workspace: Workspace) -> StepResult:
    """Compute the feature rows of every entity and event timestamp."""
    from features.offline.feature_rows import build_feature_rows

    source = workspace.source()
    dataset = workspace.home.features / source.name / "feature_rows"
    checked = current_tables(workspace.home.checked / source.name)
    facts, created = build_feature_rows(source, checked, dataset, memory=workspace.memory)
    return StepResult(folder=dataset / facts["version"], facts=facts, created=created)


def personal_features(workspace: Workspace) -> frozenset[str]:
    """Columns of feature rows and examples that hold a shopper's id, words or declared attributes."""
    extras = workspace.source().contracts()["users"].extras
    return frozenset({"user_id", "feedback_texts", *(f"user_{column.name}" for column in extras)})


def fill_store(workspace: Workspace) -> StepResult:
    """Fill a Feast store from the latest feature rows, beside those that are there."""
    from features.store.build import build_store

    name = workspace.source().name
    dataset = workspace.home.features / name / "store"
    facts, created = build_store(name, feature_rows_folder(workspace), dataset)
    return StepResult(folder=dataset / facts["version"], facts=facts, created=created)


def compare_stores(workspace: Workspace) -> "Consistency":
    """Compare online with offline features of a sample of shoppers."""
    from features.online.consistency import compare_stores as compare

    return compare(store_folder(workspace), horizon(workspace), mask=workspace.mask())


def build_examples(workspace: Workspace) -> StepResult:
    """Join the exposures with their features, point in time."""
    from features.offline.training_set import build_examples as join

    source = workspace.source()
    dataset = workspace.home.examples / source.name
    checked = current_tables(workspace.home.checked / source.name)
    facts, created = join(
        source, checked, store_folder(workspace), dataset, horizon(workspace), memory=workspace.memory
    )
    return StepResult(folder=dataset / facts["version"], facts=facts, created=created)


def current_tables(folder: Path) -> dict[str, Path]:
    """The current version of every dataset in a folder, by name."""
    datasets = [path for path in sorted(folder.glob("*")) if current(path) is not None]
    if not datasets:
        raise SchemaError(f"nothing has landed in {folder}; run the ingestion first")
    return {dataset.name: current_folder(dataset) for dataset in datasets}


def feature_rows_folder(workspace: Workspace) -> Path:
    """The current version of the source's feature rows."""
    return current_folder(workspace.home.features / workspace.source().name / "feature_rows")


def store_folder(workspace: Workspace) -> Path:
    """The current version of the source's Feast store, the feature rows in it."""
    return current_folder(workspace.home.features / workspace.source().name / "store")


def horizon(workspace: Workspace) -> datetime:
    """The time up to which the source's data reach, naive UTC."""
    return datetime.fromisoformat(read_json(store_folder(workspace) / "facts.json")["horizon"])
