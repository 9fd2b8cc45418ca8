"""Validation of a source's landed tables: checked rows go on, broken rows go to quarantine.

Tables that others refer to are validated first, and references are looked up among the rows that
passed: an exposure of an item in quarantine goes to quarantine too.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from expectations.contracts.schema import Table
from expectations.errors import ImplementationError, SchemaError
from expectations.storage.atomic import write_json
from expectations.storage.datasets import POINTER, current, land
from expectations.storage.hashes import fingerprint
from expectations.storage.masking import OPEN, Mask
from expectations.suites.checked import QUARANTINE_FILE, write_checked, write_quarantine
from expectations.suites.data_docs import Finding, Project, open_project
from expectations.suites.distribution_rules import distribution_rules
from expectations.suites.engine import open_duckdb
from expectations.suites.overlap_rules import compared_tables, overlap_rules
from expectations.suites.referential_rules import Reference, cross_rules, future_columns, references
from expectations.suites.report import CheckReport, TableReport, check_report, from_pointer, to_facts
from expectations.suites.rules import Rule, Settings, quoted
from expectations.suites.scan import Scan, data_files, missing_columns, open_scan
from expectations.suites.schema_rules import contract_rules

SPILL = ".spill"
"""Beside a source's checked datasets, while one is made."""

RULES_VERSION = 2
"""Raise it when the meaning of a validation changes while its rules read the same."""


def validate(
    tables: Mapping[str, Path],
    contracts: Mapping[str, Table],
    *,
    checked_dir: Path,
    quarantine_dir: Path,
    gx_dir: Path,
    now: datetime,
    memory: str | None = None,
    settings: Settings | None = None,
    mask: Mask = OPEN,
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
        memory: what DuckDB may use, such as "6GB"; what does not fit is spilled below `checked_dir`.
        settings: what is tolerated.
        mask: hides the personal values in samples and messages; quarantine and Data Docs have them as they are.

    Returns:
        Table -> report, in the order of validation.

    Raises:
        SchemaError: a table is unknown, cannot be read, or its columns are not those of its
            contract; or a required table is missing.
        ImplementationError: a rule could not be evaluated.
        SettingError: a table fits neither in memory nor on the disk.
    """
    settings = settings or Settings()
    as_of = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    order = _order(tables, contracts)
    _remove_absent(tables, contracts, checked_dir, quarantine_dir)
    reports: dict[str, TableReport] = {}
    with ExitStack() as stack:
        project: Project | None = None
        for name in tqdm(order, desc="Validating", unit="table", disable=None):
            one = _TableValidation(
                contract=contracts[name],
                folder=tables[name],
                present=order,
                checked={other: reports[other].folder for other in compared_tables(contracts[name], order)},
                dataset=checked_dir / name,
                quarantine=quarantine_dir / name,
                gx_dir=gx_dir,
                now=as_of,
                memory=memory,
                settings=settings,
                mask=mask,
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
        raise SchemaError(
            f"table {absent[0]} is required but has not landed; ingest the source. {contracts[absent[0]].bring}"
        )
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


def table_rules(contract: Table, present: Collection[str], settings: Settings) -> tuple[Rule, ...]:
    """All rules of one table, given the names of the tables that are present."""
    return (
        *contract_rules(contract, settings),
        *cross_rules(contract, present, settings),
        *overlap_rules(contract, present, settings),
        *distribution_rules(contract, settings),
    )


@dataclass(kw_only=True)
class _TableValidation:
    """The validation of one table: expect, compare, set apart, land, report."""

    contract: Table
    folder: Path
    present: Sequence[str]
    checked: Mapping[str, Path]
    dataset: Path
    quarantine: Path
    gx_dir: Path
    now: datetime
    memory: str | None
    settings: Settings
    mask: Mask

    references: tuple[Reference, ...] = field(init=False)
    rules: tuple[Rule, ...] = field(init=False)
    files: tuple[Path, ...] = field(init=False)
    missing: tuple[str, ...] = field(init=False)
    version: str = field(init=False)

    def __post_init__(self) -> None:
        self.references = references(self.contract, self.present)
        self.rules = table_rules(self.contract, self.present, self.settings)
        self.files = data_files(self.folder)
        self.missing = missing_columns(self.files, self.contract)
        self.version = self._fingerprint()

    def unchanged(self) -> TableReport | None:
        """The last report, where the same input was checked by the same rules and all output is there."""
        pointer = current(self.dataset)
        if pointer is None or pointer["version"] != self.version:
            return None
        report = from_pointer(self.contract.name, pointer, self.dataset, self.gx_dir)
        whole = report.num_quarantined == 0 or (self.quarantine / QUARANTINE_FILE).exists()
        return report if whole and report.folder.is_dir() and report.data_docs.exists() else None

    def run(self, project: Project) -> TableReport:
        """Check the table, write its quarantine, land what passed."""
        with open_scan(
            self.files,
            self.contract,
            references=self.references,
            checked=self.checked,
            now=self.now,
            spill=self.dataset.parent / SPILL,
            memory=self.memory,
        ) as scan:
            num_rows = scan.num_rows()
            findings, page = self._expect(project, scan, num_rows)
            rules = self._asked(num_rows)
            broken = [
                rule
                for rule in rules
                if rule.per_row and rule.severity == "critical" and findings[rule.name].num_unexpected
            ]
            self._compare(scan, findings)
            num_broken = scan.set_apart(broken)
            checks = tuple(_check(rule, findings[rule.name], scan, num_rows, self.mask) for rule in rules)
            report = TableReport(
                table=self.contract.name,
                num_rows=num_rows,
                num_checked=num_rows - num_broken,
                num_quarantined=num_broken,
                checks=checks,
                folder=self.dataset / self.version,
                data_docs=page,
                unchanged=False,
            )
            write_quarantine(scan, num_broken, self.quarantine)
            self._land(scan, report)
        return report

    def _asked(self, num_rows: int) -> tuple[Rule, ...]:
        """The rules that have something to say; of a table without rows only that it has none."""
        if num_rows:
            return self.rules
        return tuple(
            rule for rule in self.rules if rule.expectation.startswith("ExpectTable") and not rule.per_row
        )

    def _expect(self, project: Project, scan: Scan, num_rows: int) -> tuple[dict[str, Finding], Path]:
        columns = [name for name in self.contract.schema.names if name not in self.missing]
        rules = self._asked(0 if self.missing else num_rows)
        skipping_nulls = {
            rule.arguments["column"]
            for rule in rules
            if rule.per_row and not rule.flag and rule.column and "NotBeNull" not in rule.expectation
        }
        findings, page = project.run(
            f"{self.dataset.parent.name}_{self.contract.name}",
            scan.frame(rules, columns),
            rules,
            num_values=scan.num_values(sorted(skipping_nulls)),
            max_results=self.settings.max_results,
        )
        if self.missing:
            raise SchemaError(
                f"table {self.contract.name} in {self.folder} lacks the column {', '.join(self.missing)} "
                f"of its contract; ingest the source again (see {page})"
            )
        return findings, page

    def _compare(self, scan: Scan, findings: Mapping[str, Finding]) -> None:
        """Rows set apart by SQL must be those that Great Expectations found."""
        for rule in self.rules:
            finding = findings.get(rule.name)
            if finding is None or not finding.num_unexpected or rule.breaks is None:
                continue
            num_rows = scan.count(rule)
            if num_rows != finding.num_unexpected:
                raise ImplementationError(
                    f"the rule {rule.name} fails in {finding.num_unexpected} rows for Great Expectations, "
                    f"in {num_rows} for DuckDB: its SQL does not say what its expectation says"
                )

    def _land(self, scan: Scan, report: TableReport) -> None:
        facts = to_facts(report, self.gx_dir)

        def write(target: Path) -> Mapping[str, object]:
            broken = scan.broken_rows() if report.num_quarantined else {}
            num_written = write_checked(self.folder, self.files, self.contract, broken, target)
            if num_written != report.num_checked:
                raise ImplementationError(
                    f"{num_written} rows of {report.table} written, {report.num_checked} passed; "
                    "rows would be lost or doubled"
                )
            return facts

        _, written = land(self.dataset, self.version, write)
        if not written:  # the rows are there, but a page or the quarantine was not
            write_json(self.dataset / POINTER, {"version": self.version, **facts})

    def _fingerprint(self) -> str:
        """The fingerprint of the input, the rules and the settings."""
        files = [(str(file.relative_to(self.folder)), file.stat().st_size) for file in self.files]
        known = {table: folder.name for table, folder in self.checked.items()}
        rules = [asdict(rule) for rule in self.rules]
        return fingerprint(
            RULES_VERSION,
            self.folder.name,
            files,
            known,
            rules,
            asdict(self.settings),
            self._num_future(),
            bool(self.mask.key),
        )

    def _num_future(self) -> list[int]:
        """Rows in the future, by column: all that the moment of validation can change in a result."""
        columns = [name for name in future_columns(self.contract) if name not in self.missing]
        if not columns:
            return []
        counts = ", ".join(f"count(*) FILTER ({quoted(name)} > $now)" for name in columns)
        with open_duckdb(
            None
        ) as connection:  # counts; another process may be validating into the same folder
            row = connection.execute(
                f"SELECT {counts} FROM read_parquet($files, union_by_name = true)",  # noqa: S608
                {"now": self.now, "files": [str(file) for file in self.files]},
            ).fetchall()[0]
        return list(row)


def _check(rule: Rule, finding: Finding, scan: Scan, num_rows: int, mask: Mask) -> CheckReport:
    failed = bool(finding.num_unexpected) if rule.per_row else not finding.success
    sample, num_failed = finding.sample, finding.num_unexpected if rule.per_row else 0
    if failed and rule.breaks:
        sample = scan.sample(rule, mask)
        num_failed = num_failed or scan.count(rule)
    return check_report(
        rule,
        passed=finding.success,
        num_failed=num_failed,
        num_rows=num_rows,
        sample=() if rule.per_row and not failed else sample,
        observed=() if rule.per_row else finding.sample,
        explained=scan.explain(rule, mask) if failed else ("", None),
    )
