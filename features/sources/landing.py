"""Ingestion: the tables that a connector reads become datasets of Parquet, all or none.

Every table is staged and written to a scratch folder first; only when all are complete do the
datasets' pointers move, table by table. So a missing column in one file, a full disk or a killed
run leave what had landed before. A version's name is the fingerprint of the contract, the
declaration, the content and this package's code: the same input twice is not even read.

Rejected rows are written before the pointer moves: were it the other way round, a run killed in
between would leave a current version whose quarantine is never written.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from expectations.contracts.schema import Table
from expectations.contracts.source import Source
from expectations.errors import DataError, RecommenderError, SchemaError, TransientError
from expectations.storage.atomic import replacing
from expectations.storage.datasets import current, land, remove
from expectations.storage.erasures import NOBODY, Erased
from expectations.storage.hashes import file_hash, fingerprint
from expectations.storage.masking import OPEN, Mask
from expectations.suites.engine import open_duckdb
from expectations.suites.rules import Settings
from features.sources.erased import leave_out
from features.sources.rejections import explain
from features.sources.staging import Reading, count_rows, explained, write_rejected, write_table

QUARANTINE_FILE = "ingestion.parquet"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LandedTable:
    """One landed table.

    Attributes:
        table: its name.
        folder: the current version's folder of Parquet files.
        version: the fingerprint of what it was made from.
        num_rows: rows that landed.
        num_rejected: rows in quarantine.
        written: False where the same version was there before.
    """

    table: str
    folder: Path
    version: str
    num_rows: int
    num_rejected: int
    written: bool


def ingest(
    source: Source,
    declaration: Path | None = None,
    *,
    tables_dir: Path,
    quarantine_dir: Path,
    memory_limit: str | None = None,
    tolerance: float = Settings.tolerance,
    mask: Mask = OPEN,
    erased: Callable[[], Erased] = lambda: NOBODY,
) -> dict[str, LandedTable]:
    """Land a shop's tables.

    Args:
        source: the shop's declaration.
        declaration: its file, named in error messages.
        tables_dir: folder of the source's datasets, one below it for each table.
        quarantine_dir: folder of the source's quarantine, one below it for each table.
        memory_limit: DuckDB's, such as "4GB".
        tolerance: fraction of a table's rows that may be rejected, as validation tolerates it.
        mask: hides the personal values that error messages show.
        erased: tells the shoppers whose rows do not land; asked when no erasure can be at work any more.

    Returns:
        The tables that the shop brought, in the contract's order. An optional table that is
        absent or has no row is not among them, and its dataset is removed.

    Raises:
        SchemaError: a required table has no row, a column is missing, its numbers can be read in two
            ways, or a file cannot be read.
        DataError: of a table more rows are rejected than tolerated.
        SettingError: the declaration does not fit, or memory does not suffice.
        TransientError: the database cannot be reached, the disk is full, or another ingestion
            of the source is running.
    """
    tables_dir.mkdir(parents=True, exist_ok=True)
    with _alone(tables_dir), _scratch(tables_dir) as scratch:
        contracts, gone = source.contracts(), erased()
        found = _readings(source, scratch)
        landed: dict[str, LandedTable] = {}
        unfit: list[RecommenderError] = []
        for name in (name for name in contracts if name in found):
            try:
                ready = _prepare(
                    contracts[name],
                    found[name],
                    version=_version(source, contracts[name], found[name], gone),
                    tables_dir=tables_dir,
                    scratch=scratch,
                    memory_limit=memory_limit,
                    tolerance=tolerance,
                    mask=mask,
                    erased=gone,
                )
            except (DataError, SchemaError) as error:  # what else is wrong is told at once
                unfit.append(error)
                continue
            if ready is not None:
                landed[name] = ready
        if unfit:
            raise type(unfit[0])("\n".join(map(str, unfit))) from unfit[0]
        missing = [name for name, table in contracts.items() if table.required and name not in landed]
        if missing:
            where = declaration or f"the declaration of {source.name}"
            raise SchemaError(
                f"{missing[0]} has no rows, but is required; correct its data or {where}. "
                f"{contracts[missing[0]].bring}"
            )
        for name, table in landed.items():
            if table.written:
                _land(table, scratch / name, quarantine_dir)
        for name in contracts.keys() - landed.keys():
            _remove(tables_dir / name, quarantine_dir / name)
        return landed


def _readings(source: Source, scratch: Path) -> Mapping[str, Reading]:
    if source.connector == "complete_journey":
        from features.sources.complete_journey import connector as complete_journey

        found = complete_journey.readings(source)
    else:
        from features.sources.tables import connector as tables  # SQLAlchemy is loaded by those who need it

        found = tables.readings(source, scratch)
    if any(table.ledger for table in source.tables.values()):
        from features.sources.ledger import with_ledger

        return with_ledger(source, found, scratch)
    return found


def _prepare(
    contract: Table,
    reading: Reading,
    *,
    version: str,
    tables_dir: Path,
    scratch: Path,
    memory_limit: str | None,
    tolerance: float,
    mask: Mask,
    erased: Erased,
) -> LandedTable | None:
    """Stage and write to the scratch folder a table that changed; None where it has no row at all."""
    target = tables_dir / contract.name / version
    table = partial(LandedTable, table=contract.name, folder=target, version=version)
    pointer = current(tables_dir / contract.name)
    if pointer and pointer["version"] == version and target.is_dir():
        return table(num_rows=pointer["num_rows"], num_rejected=pointer["num_rejected"], written=False)
    folder = scratch / contract.name
    folder.mkdir()
    with open_duckdb(scratch / "spill", memory_limit) as con:
        with explained(contract.name):
            reading.stage(con)
            leave_out(con, contract, erased)
        num_rows, num_rejected = count_rows(con)
        if num_rows + num_rejected == 0:
            _log.warning("%s: the source has no row", contract.name)
            return None
        if num_rows == 0 or num_rejected > tolerance * (num_rows + num_rejected):
            raise DataError(explain(con, contract, num_rows, num_rejected, tolerance, mask))
        with explained(f"{contract.name}: the landed files in {tables_dir}"):
            write_table(con, contract, folder / "rows")
            write_rejected(con, contract.name, folder / QUARANTINE_FILE)
    return table(num_rows=num_rows, num_rejected=num_rejected, written=True)


def _version(source: Source, contract: Table, reading: Reading, erased: Erased) -> str:
    declared = source.tables.get(contract.name)
    return fingerprint(
        [(column.name, column.type, column.required) for column in contract.columns],
        [contract.key, contract.event_time],
        [dict(declared.columns), dict(declared.constants), declared.query, asdict(declared.format)]
        if declared
        else None,
        reading.identity,
        sorted(erased.users) if "user_id" in contract.schema.names else [],
        [file_hash(path) for path in sorted(Path(__file__).parent.rglob("*.py"))],
    )


def _land(table: LandedTable, staged: Path, quarantine_dir: Path) -> None:
    def move(target: Path) -> Mapping[str, int]:
        _publish(staged / QUARANTINE_FILE, quarantine_dir / table.table / QUARANTINE_FILE)
        for path in sorted((staged / "rows").iterdir()):
            path.rename(target / path.name)
        return {"num_rows": table.num_rows, "num_rejected": table.num_rejected}

    with explained(f"{table.table}: {table.folder.parent}"):
        land(table.folder.parent, table.version, move)


def _publish(rejected: Path, target: Path) -> None:
    """Put a table's quarantine in place of the old one, or remove that where no row is rejected."""
    if not rejected.exists():
        target.unlink(missing_ok=True)
        return
    with replacing(target) as temporary:  # the quarantine may lie on another disk
        shutil.copyfile(rejected, temporary)


def _remove(dataset: Path, quarantine: Path) -> None:
    """Take away a table that the source no longer brings."""
    remove(dataset)
    (quarantine / QUARANTINE_FILE).unlink(missing_ok=True)


@contextmanager
def _alone(tables_dir: Path) -> Iterator[None]:
    """Hold the source's lock, which the system frees when the process ends."""
    try:
        held = FileLock(tables_dir / ".lock").acquire(timeout=0)
    except Timeout:
        raise TransientError(f"another ingestion is writing to {tables_dir}; run again later") from None
    with held:
        yield


@contextmanager
def _scratch(tables_dir: Path) -> Iterator[Path]:
    for stale in tables_dir.glob(".ingesting-*"):  # of a killed run: we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=tables_dir, prefix=".ingesting-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
