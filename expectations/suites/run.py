"""Validation of a source's landed tables: checked rows go on, broken rows go to quarantine.

Tables that others refer to are validated first, and references are looked up among the rows that
passed: an exposure of an item in quarantine goes to quarantine too.
"""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from expectations.contracts.schema import Table
from expectations.errors import SchemaError
from expectations.storage.datasets import current
from expectations.suites.checked import QUARANTINE_FILE
from expectations.suites.data_docs import Project, open_project
from expectations.suites.referential_rules import references
from expectations.suites.report import TableReport
from expectations.suites.rules import Settings
from expectations.suites.table_validation import TableValidation


def validate(
    tables: Mapping[str, Path],
    contracts: Mapping[str, Table],
    *,
    checked_dir: Path,
    quarantine_dir: Path,
    gx_dir: Path,
    now: datetime,
    settings: Settings | None = None,
) -> dict[str, TableReport]:
    """Check landed tables, and land the rows that pass.

    A row that breaks one critical rule or more goes to quarantine once, with all its reasons. A
    critical check passes while no more rows than tolerated break it; see `TableReport.blocking`.
    What was checked before, from the same input by the same rules, is not checked again.

    Args:
        tables: table -> folder of its landed version: all tables that the shop brings. The checked
            version and quarantine of an optional table that is not among them are removed.
        contracts: table -> contract, with the source's extra columns.
        checked_dir: folder of the source's checked datasets, one below it for each table. Its name,
            the source's, is part of the names of suites and pages.
        quarantine_dir: folder of the source's quarantine, one below it for each table.
        gx_dir: folder of the Great Expectations project, which several sources may share.
        now: events after this time are in the future; UTC where it has no zone.
        settings: what is tolerated.

    Returns:
        Table -> report, in the order of validation.

    Raises:
        SchemaError: a table is unknown, cannot be read, or its columns are not those of its
            contract; or a required table is missing.
        ImplementationError: a rule could not be evaluated.
    """
    settings = settings or Settings()
    as_of = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    order = _order(tables, contracts)
    _remove_absent(tables, contracts, checked_dir, quarantine_dir)
    reports: dict[str, TableReport] = {}
    with ExitStack() as stack:
        project: Project | None = None
        for name in tqdm(order, desc="Validating", unit="table", disable=None):
            one = TableValidation(
                contract=contracts[name],
                folder=tables[name],
                present=order,
                checked={other: report.folder for other, report in reports.items()},
                dataset=checked_dir / name,
                quarantine=quarantine_dir / name,
                gx_dir=gx_dir,
                now=as_of,
                settings=settings,
            )
            report = one.unchanged()
            if report is None and project is None:
                project = stack.enter_context(open_project(gx_dir))
                report = one.unchanged()  # another process may have validated it while this one waited
            if report is None:
                assert project is not None  # noqa: S101
                report = one.run(project)
            reports[name] = report
    return reports


def _order(tables: Mapping[str, Path], contracts: Mapping[str, Table]) -> list[str]:
    """Tables that others refer to first."""
    unknown = sorted(set(tables) - set(contracts))
    if unknown:
        raise SchemaError(f"table {unknown[0]} has no contract; the contracts are {', '.join(contracts)}")
    absent = [name for name, table in contracts.items() if table.required and name not in tables]
    if absent:
        raise SchemaError(f"table {absent[0]} is required but has not landed; ingest the source")
    present = [name for name in contracts if name in tables]
    referred = {other.table for name in present for other in references(contracts[name], present)}
    return sorted(present, key=lambda name: name not in referred)


def _remove_absent(
    tables: Mapping[str, Path], contracts: Mapping[str, Table], checked_dir: Path, quarantine_dir: Path
) -> None:
    for name in set(contracts) - set(tables):
        if current(checked_dir / name) is not None:
            shutil.rmtree(checked_dir / name)
            (quarantine_dir / name / QUARANTINE_FILE).unlink(missing_ok=True)
