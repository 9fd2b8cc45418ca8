"""Validation: the landed rows that keep their contract, and one check result for each severity of rule."""

from collections.abc import Iterator

import dagster as dg

from expectations.contracts.shop_tables import CONTRACTS
from orchestration.assets import metadata
from orchestration.assets.failures import translate_errors
from orchestration.resources import WorkspaceResource

CRITICAL, WARNING = "critical_rules", "warning_rules"
MAX_SAMPLES = 5


def checked_key(table: str) -> str:
    """Name of the asset of a table's checked rows."""
    return f"checked_{table}"


@dg.multi_asset(
    name="validation",
    group_name="validation",
    specs=[
        dg.AssetSpec(
            checked_key(name),
            deps=list(CONTRACTS) if name == "exposures" else sorted({name, "items"}),
            description=f"{contract.grain[0].upper()}{contract.grain[1:]} that keeps its contract: `{name}` "
            "without the rows that broke a critical rule, which are in quarantine with their reason.",
            kinds={"greatexpectations", "parquet"},
            owners=metadata.OWNERS,
            tags={"layer": "checked"},
        )
        for name, contract in CONTRACTS.items()
    ],
    check_specs=[
        dg.AssetCheckSpec(check, asset=checked_key(name), blocking=check == CRITICAL, description=description)
        for name in CONTRACTS
        for check, description in (
            (CRITICAL, "Rules that the rest relies on. More broken rows than tolerated stop the run."),
            (WARNING, "Rules that say what is normal. They never stop a run."),
        )
    ],
)
def checked_tables(workspace: WorkspaceResource) -> Iterator[dg.MaterializeResult]:
    """Check every landed table against its contract, its distributions and the other tables."""
    from orchestration.pipeline import data as steps

    with translate_errors():
        reports = steps.validate(workspace.workspace())
    for name in CONTRACTS:
        yield _checked(name, reports.get(name))


def _checked(name: str, report) -> dg.MaterializeResult:  # type: ignore[no-untyped-def]
    if report is None:
        absent = {"note": "not brought by this source"}
        checks = [
            dg.AssetCheckResult(asset_key=checked_key(name), passed=True, check_name=check, metadata=absent)
            for check in (CRITICAL, WARNING)
        ]
        return dg.MaterializeResult(
            asset_key=checked_key(name), metadata={"rows": 0, **absent}, check_results=checks
        )
    return dg.MaterializeResult(
        asset_key=checked_key(name),
        data_version=dg.DataVersion(report.folder.name),
        metadata={
            "dagster/row_count": report.num_checked,
            "landed_rows": report.num_rows,
            "quarantined_rows": report.num_quarantined,
            "unchanged": report.unchanged,
            "data_docs": metadata.page(report.data_docs),
            "preview": metadata.preview(report.folder),
        },
        check_results=[
            _check_result(report, "critical", CRITICAL),
            _check_result(report, "warning", WARNING),
        ],
    )


def _check_result(report, severity: str, name: str) -> dg.AssetCheckResult:  # type: ignore[no-untyped-def]
    checks = [check for check in report.checks if check.severity == severity]
    failed = [check for check in checks if not check.passed]
    severities = {"critical": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}
    rows = [
        {
            "rule": c.rule,
            "passed": c.passed,
            "rows": c.num_failed,
            "fraction": c.share_failed,
            "tolerated": c.bound,
        }
        for c in checks
    ]
    details = [
        {
            "table": c.table,
            "rule": c.rule,
            "rows": c.num_failed,
            "sample": list(c.sample[:MAX_SAMPLES]),
            "message": c.message,
        }
        for c in failed
    ]
    return dg.AssetCheckResult(
        asset_key=checked_key(report.table),
        passed=not failed,
        check_name=name,
        severity=severities[severity],
        description="; ".join(check.message for check in failed)[:1000] or f"{len(checks)} rules passed",
        metadata={
            "failed_rules": dg.MetadataValue.json(details),
            "rules": metadata.table(rows),
            "data_docs": metadata.page(report.data_docs),
        },
    )
