"""What a validation says: one report a table, one check a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expectations.errors import SchemaError
from expectations.suites.rules import Rule, Severity


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """One rule against one table.

    Attributes:
        table, rule, column: what was checked.
        severity: "critical" stops the pipeline where it fails; "warning" never does.
        passed: what Great Expectations found, given the tolerated fraction.
        num_failed: rows that break the rule (of a key: all rows that share one); 0 for a rule on the
            whole table that no single row breaks.
        fraction_failed: of the table's rows; for a rule on the whole table 1.0 where it fails.
        bound: fraction that is tolerated.
        sample: up to five offending values.
        message: full sentences with table, column, rows, what other tables have in place of missing ids, and
            the remedy.
    """

    table: str
    rule: str
    column: str | None
    severity: Severity
    passed: bool
    num_failed: int
    fraction_failed: float
    bound: float
    sample: tuple[str, ...]
    message: str


@dataclass(frozen=True, kw_only=True)
class TableReport:
    """The validation of one table: `num_rows = num_checked + num_quarantined`.

    Attributes:
        table: its name.
        num_rows: rows of the landed version.
        num_checked: rows that went on, in `folder`.
        num_quarantined: rows that broke a critical rule; each is in quarantine once.
        checks: one for every rule, in the order of the rules.
        folder: the version of the checked table.
        data_docs: HTML page of this validation.
        unchanged: nothing was computed: same input, rules and settings as the last time.
    """

    table: str
    num_rows: int
    num_checked: int
    num_quarantined: int
    checks: tuple[CheckReport, ...]
    folder: Path
    data_docs: Path
    unchanged: bool

    @property
    def blocking(self) -> tuple[CheckReport, ...]:
        """The critical checks that failed: the pipeline must stop if there is one."""
        return self._failed("critical")

    @property
    def warnings(self) -> tuple[CheckReport, ...]:
        """The warnings that failed."""
        return self._failed("warning")

    def _failed(self, severity: Severity) -> tuple[CheckReport, ...]:
        return tuple(check for check in self.checks if check.severity == severity and not check.passed)


def check_report(
    rule: Rule,
    *,
    passed: bool,
    num_failed: int,
    num_rows: int,
    sample: tuple[str, ...],
    observed: tuple[str, ...] = (),
    explained: tuple[str, str | None] = ("", None),
) -> CheckReport:
    """The report on one rule, with its message.

    `observed` is what a rule on the whole table found, `explained` why ids are not, with its remedy.
    """
    clue, remedy = explained
    ends = " ".join(part for part in (clue, remedy or rule.remedy) if part)
    return CheckReport(
        table=rule.table,
        rule=rule.name,
        column=rule.column,
        severity=rule.severity,
        passed=passed,
        num_failed=num_failed,
        fraction_failed=num_failed / num_rows if rule.per_row else float(not passed),
        bound=rule.bound,
        sample=sample,
        message=_message(rule, passed, num_failed, num_rows, observed, ends),
    )


def _message(
    rule: Rule, passed: bool, num_failed: int, num_rows: int, observed: Sequence[str], ends: str
) -> str:
    """A sentence that names table, column and rows, and says what to do."""
    where = f"{rule.table}.{rule.column}" if rule.column else rule.table
    if not rule.per_row:
        found = f", found: {', '.join(observed)}" if observed else ""
        seen = f"{rule.says} ({num_rows:,} rows{found})"
        return f"{where}: {seen}." if passed else f"{where}: it does not hold that {seen}. {ends}"
    if not num_failed:
        return f"{where}: in all {num_rows:,} rows, {rule.says}."
    stay = "All but the first of each key" if rule.counts else "They"
    fate = f"{stay} are in quarantine" if rule.severity == "critical" else "They go on"
    against = "within" if passed else "more than"
    return (
        f"{where}: in {num_failed:,} of {num_rows:,} rows ({num_failed / num_rows:.2%}, {against} the "
        f"tolerated {rule.bound:.2%}) it does not hold that {rule.says}. {fate}. {ends}"
    )


def to_facts(report: TableReport, gx_dir: Path) -> dict[str, Any]:
    """What the pointer of the checked table keeps of a report."""
    counts = {name: getattr(report, name) for name in ("num_rows", "num_checked", "num_quarantined")}
    page = report.data_docs.relative_to(gx_dir).as_posix()
    return counts | {"data_docs": page, "checks": [asdict(check) for check in report.checks]}


def from_pointer(table: str, pointer: Mapping[str, Any], dataset: Path, gx_dir: Path) -> TableReport:
    """The report of a version that was checked before.

    Raises:
        SchemaError: the pointer was not written by a validation.
    """
    facts = dict(pointer)
    try:
        return TableReport(
            table=table,
            folder=dataset / facts.pop("version"),
            data_docs=gx_dir / facts.pop("data_docs"),
            checks=tuple(
                CheckReport(**{**check, "sample": tuple(check["sample"])}) for check in facts.pop("checks")
            ),
            unchanged=True,
            **facts,
        )
    except (KeyError, TypeError) as error:
        raise SchemaError(
            f"{dataset}/current.json holds no validation report ({error!r}); delete it and validate again"
        ) from error
