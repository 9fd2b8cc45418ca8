"""A shop's tables: landed in the contract's types, and what of them keeps the contract."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from expectations.contracts.shop_tables import CONTRACTS
from expectations.suites.overlap_rules import compared_tables
from orchestration.assets import metadata
from orchestration.pipeline import data as steps
from orchestration.resources import POOL, WorkspaceResource, translate_errors
from orchestration.run_events import rule_text

if TYPE_CHECKING:
    from expectations.suites.report import CheckReport, TableReport

CHECKS = {
    "critical_rules": "Rules that the rest relies on. More broken rows than tolerated stop the run.",
    "warning_rules": "Rules that say what is normal. They never stop a run.",
}
SEVERITIES = {
    "critical_rules": ("critical", dg.AssetCheckSeverity.ERROR),
    "warning_rules": ("warning", dg.AssetCheckSeverity.WARN),
}
ABSENT = {"note": "not brought by this source"}


def checked_key(table: str) -> str:
    """Name of the asset of a table's checked rows."""
    return f"checked_{table}"


@dg.multi_asset(
    name="ingestion",
    group_name="ingestion",
    pool=POOL,
    specs=[
        dg.AssetSpec(
            name,
            description=f"{contract.grain[0].upper()}{contract.grain[1:]}, as the shop brings it, in the "
            f"contract's types{'' if contract.required else '; optional'}. Rows that cannot be read are in quarantine.",
            kinds={"parquet", "duckdb"},
            tags={"layer": "landed"},
        )
        for name, contract in CONTRACTS.items()
    ],
)
def landed_tables(workspace: WorkspaceResource) -> Iterator[dg.MaterializeResult]:
    """Land the six tables of the source."""
    with translate_errors():
        landed = steps.ingest(workspace.workspace())
        contracts, mask = workspace.workspace().source().contracts(), workspace.workspace().mask()
    for name in CONTRACTS:
        table = landed.get(name)
        if table is None:
            yield dg.MaterializeResult(asset_key=name, metadata={"rows": 0, **ABSENT})
            continue
        yield dg.MaterializeResult(
            asset_key=name,
            data_version=dg.DataVersion(table.version),
            metadata={
                "dagster/row_count": table.num_rows,
                "rejected_rows": table.num_rejected,
                "unchanged": not table.written,
                "folder": dg.MetadataValue.path(table.folder),
                "preview": metadata.preview(table.folder, contracts[name].personal, mask),
            },
        )


@dg.multi_asset(
    name="validation",
    group_name="validation",
    pool=POOL,
    specs=[
        dg.AssetSpec(
            checked_key(name),
            deps=sorted({name, *compared_tables(contract, CONTRACTS)}),
            description=f"{contract.grain[0].upper()}{contract.grain[1:]} that keeps its contract: `{name}` "
            "without the rows that broke a critical rule, which are in quarantine with their reason.",
            kinds={"greatexpectations", "parquet"},
            tags={"layer": "checked"},
        )
        for name, contract in CONTRACTS.items()
    ],
    check_specs=[
        dg.AssetCheckSpec(
            check, asset=checked_key(name), blocking=check == "critical_rules", description=description
        )
        for name in CONTRACTS
        for check, description in CHECKS.items()
    ],
)
def checked_tables(
    context: dg.AssetExecutionContext, workspace: WorkspaceResource
) -> Iterator[dg.MaterializeResult]:
    """Check every landed table against its contract, its distributions and the other tables."""
    with translate_errors():
        reports = steps.validate(workspace.workspace())
        contracts, mask = workspace.workspace().source().contracts(), workspace.workspace().mask()
    for name in CONTRACTS:
        report, key = reports.get(name), checked_key(name)
        if report is None:
            checks = [
                dg.AssetCheckResult(asset_key=key, passed=True, check_name=check, metadata=ABSENT)
                for check in CHECKS
            ]
            yield dg.MaterializeResult(asset_key=key, metadata={"rows": 0, **ABSENT}, check_results=checks)
            continue
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(report.folder.name),
            metadata={
                "dagster/row_count": report.num_checked,
                "landed_rows": report.num_rows,
                "quarantined_rows": report.num_quarantined,
                "unchanged": report.unchanged,
                "data_docs": metadata.page(report.data_docs),
                "preview": metadata.preview(report.folder, contracts[name].personal, mask),
            },
            check_results=[_check_result(report, check) for check in CHECKS],
        )
        for check in report.blocking:
            context.log.error(rule_text(_failed_rule(check)))


def _failed_rule(check: "CheckReport") -> dict[str, Any]:
    return metadata.failed_rule(check.table, check.rule, check.num_failed, check.sample, check.message)


def _check_result(report: "TableReport", name: str) -> dg.AssetCheckResult:
    severity, dagster_severity = SEVERITIES[name]
    checks = [check for check in report.checks if check.severity == severity]
    failed = [check for check in checks if not check.passed]
    rows = [
        {
            "rule": c.rule,
            "passed": c.passed,
            "rows": c.num_failed,
            "fraction": c.fraction_failed,
            "tolerated": c.bound,
        }
        for c in checks
    ]
    return dg.AssetCheckResult(
        asset_key=checked_key(report.table),
        passed=not failed,
        check_name=name,
        severity=dagster_severity,
        description="; ".join(check.message for check in failed)[:1000] or f"{len(checks)} rules passed",
        metadata={
            **metadata.broken_rules([_failed_rule(check) for check in failed]),
            "rules": metadata.table(rows),
            "data_docs": metadata.page(report.data_docs),
        },
    )
