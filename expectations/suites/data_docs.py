"""Great Expectations itself: a file-based project, one suite a table, its results and its Data Docs.

Three habits of version 1.24 shape this module. An expectation that raises comes back as
`success=False` with the error in `exception_info`: that is our mistake, so it is raised as one. The
suite's `success` is False after a mere warning: results are taken rule by rule. Every run adds a
result and a page: older ones are removed, so that the folder does not grow.

Pages are built by hand, once at the end: the checkpoint action of Great Expectations builds the index again after
each table, which takes twice as long.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from filelock import FileLock

from expectations.errors import ImplementationError
from expectations.storage.atomic import write_text
from expectations.suites.rules import Rule

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import AbstractDataContext

SITE = Path("gx", "uncommitted", "data_docs", "local_site")
"""Where Data Docs are, from the project's folder."""

DATASOURCE = "landed"
TRACKED_LOGO = re.compile(r"https://great-expectations-web-assets\.[^\"')\s]*")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What Great Expectations says of one rule.

    Attributes:
        success: whether it holds.
        num_unexpected: values that break a rule on rows.
        sample: a few of them, or what a rule on the whole table observed.
    """

    success: bool
    num_unexpected: int
    sample: tuple[str, ...]


class Project:
    """A file-based Great Expectations project in a folder of its own."""

    def __init__(self, context: "AbstractDataContext", folder: Path) -> None:
        self._context = context
        self._results = folder / "gx" / "uncommitted" / "validations"
        self._site = folder / SITE
        self._unbuilt: list[Any] = []

    def run(
        self,
        suite_name: str,
        frame: "pd.DataFrame",
        rules: Sequence[Rule],
        *,
        num_values: Mapping[str, int],
        max_results: int,
    ) -> tuple[dict[str, Finding], Path]:
        """Expect the rules of the frame. The page of the result is there once the project is closed.

        Args:
            suite_name: name of the suite, and of the folders of its results and pages.
            frame: the table, with a column for each flag.
            rules: what is expected of it.
            num_values: column -> its values that are not null, for the columns where nulls are skipped.
            max_results: how many results and pages of this suite stay.

        Returns:
            Rule name -> finding, and the page.

        Raises:
            ImplementationError: an expectation raised, or gave no result.
        """
        import great_expectations as gx

        expectations = [_expectation(rule, len(frame), num_values) for rule in rules]
        suite = self._context.suites.add_or_update(
            gx.ExpectationSuite(name=suite_name, expectations=expectations)
        )
        definition = self._context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=suite_name, data=self._batch_definition(suite_name), suite=suite)
        )
        result = definition.run(
            batch_parameters={"dataframe": frame},
            result_format={"result_format": "BASIC", "partial_unexpected_count": 5},
            run_id=gx.RunIdentifier(run_name=suite_name),
        )
        page = self._page(suite_name, result.meta["run_id"].run_time)
        self._remove_old(suite_name, max_results)
        return _findings(rules, result), page

    def build_pages(self) -> None:
        """Build the pages of all results since the project was opened, and the index."""
        if self._unbuilt:
            self._context.build_data_docs(resource_identifiers=self._unbuilt)
            self._unbuilt = []
            _make_logo_local(self._site)

    def _batch_definition(self, name: str) -> Any:
        sources = self._context.data_sources
        datasource: Any = sources.all().get(DATASOURCE) or sources.add_pandas(DATASOURCE)
        try:
            asset = datasource.get_asset(name)
        except LookupError:
            asset = datasource.add_dataframe_asset(name)
        try:
            return asset.get_batch_definition("whole")
        except KeyError:
            return asset.add_batch_definition_whole_dataframe("whole")

    def _page(self, suite_name: str, run_time: Any) -> Path:
        from great_expectations.data_context.types.resource_identifiers import (
            ExpectationSuiteIdentifier,
        )

        results: list[Any] = self._context.validation_results_store.list_keys()
        keys = [
            key
            for key in results
            if key.expectation_suite_identifier.name == suite_name and key.run_id.run_time == run_time
        ]
        if len(keys) != 1:
            raise ImplementationError(f"{len(keys)} results of suite {suite_name} at {run_time}, not one")
        self._unbuilt += [keys[0], ExpectationSuiteIdentifier(name=suite_name)]
        sites = self._context.get_docs_sites_urls(resource_identifier=keys[0], only_if_exists=False)
        url = sites[0]["site_url"] if sites else None
        if not url:
            raise ImplementationError(f"Data Docs have no page for suite {suite_name} at {run_time}")
        # the site's folder stands in it as it is, and may hold `#` and `%`; only the page's own name is quoted
        page = Path(str(url).removeprefix("file://")).relative_to(self._site)
        return self._site / unquote(page.as_posix())

    def _remove_old(self, suite_name: str, max_results: int) -> None:
        """Results lie in <suite>/<run name>/<run time>/, and pages likewise; times sort as text."""
        for root in (self._results, self._site / "validations"):
            runs = sorted((root / suite_name / suite_name).glob("*"))
            for run in runs[:-max_results]:
                shutil.rmtree(run, ignore_errors=True)


@contextmanager
def open_project(folder: Path) -> Iterator[Project]:
    """The project in that folder, made where there is none; one process at a time works on it."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        context = gx.get_context(mode="file", project_root_dir=folder)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        context.enable_analytics(False)
        project = Project(context, folder)
        try:
            yield project
        finally:
            project.build_pages()


def _make_logo_local(site: Path) -> None:
    """Pages load a logo from the makers' server with the project's id in the address: take the copy here."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        up = "../" * (len(page.relative_to(site).parts) - 1)
        local = TRACKED_LOGO.sub(f"{up}static/images/logo-long.png", text)
        if local != text:
            write_text(page, local)


def _expectation(rule: Rule, num_rows: int, num_values: Mapping[str, int]) -> Any:
    import great_expectations.expectations as gxe

    arguments = dict(rule.arguments)
    if rule.per_row:
        column = arguments.get("column", "")
        arguments["mostly"] = _mostly(rule.bound, num_rows, num_values.get(column, num_rows))
    return getattr(gxe, rule.expectation)(
        **arguments,
        severity=rule.severity,
        meta={"rule": rule.name},
        description=f"{rule.name}: {rule.says}",
    )


def _mostly(bound: float, num_rows: int, num_values: int) -> float:
    """The fraction of values that must keep a rule, where `bound` is the fraction of rows that may break it."""
    if num_values == 0:
        return 1.0
    fraction = max(0.0, 1.0 - bound * num_rows / num_values)
    return min(1.0, floor((fraction + 1e-12) * 1e9) / 1e9)


def _findings(rules: Sequence[Rule], result: Any) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for one in result.results:
        name = one.expectation_config.meta["rule"]
        error = _error(one.exception_info)
        if error is not None:
            raise ImplementationError(
                f"the rule {name} could not be evaluated: {error}; "
                "the rule or its column's type is wrong, not the data"
            )
        values = one.result
        sample = values.get("partial_unexpected_list") or _observed(values.get("observed_value"))
        found[name] = Finding(
            success=bool(one.success),
            num_unexpected=int(values.get("unexpected_count") or 0),
            sample=tuple(f"{value:.6g}" if isinstance(value, float) else str(value) for value in sample),
        )
    missing = [rule.name for rule in rules if rule.name not in found]
    if missing:
        raise ImplementationError(f"Great Expectations gave no result for the rule {missing[0]}")
    return found


def _observed(value: Any) -> list[Any]:
    """What a rule on the whole table saw, where it is one value: the list of columns is long and known."""
    return [] if value is None or isinstance(value, list) else [value]


def _error(info: Mapping[str, Any] | None) -> str | None:
    """The error of an expectation that raised; `info` is one record, or one for each metric."""
    if not info:
        return None
    records = [info] if "raised_exception" in info else info.values()
    raised = (record for record in records if record.get("raised_exception"))
    return next((str(record.get("exception_message") or "no message").strip() for record in raised), None)
