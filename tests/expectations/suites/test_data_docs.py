"""Great Expectations' own errors are ours, never the data's."""

import pandas as pd
import pytest

from expectations.errors import ImplementationError
from expectations.suites.data_docs import open_project
from expectations.suites.rules import Rule


def rule(**changes: object) -> Rule:
    settings: dict[str, object] = {
        "name": "events.amount_small",
        "table": "events",
        "column": "amount",
        "severity": "critical",
        "says": "amount is small",
        "remedy": "Look.",
        "expectation": "ExpectColumnValuesToBeBetween",
        "arguments": {"column": "amount", "min_value": 0, "max_value": 5},
    }
    return Rule(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [
        rule(arguments={"column": "nothing_of_that_name", "min_value": 0}),
        rule(arguments={"column": "channel", "min_value": 0, "max_value": 5}),
    ],
    ids=["column that is not there", "number against text"],
)
def test_an_expectation_that_raises_is_an_implementation_error(tmp_path, broken):
    frame = pd.DataFrame({"amount": [1.0, 9.0], "channel": ["web", "store"]})
    with (
        open_project(tmp_path) as project,
        pytest.raises(ImplementationError, match=r"the rule events.amount_small could not be evaluated"),
    ):
        project.run("shop_events", frame, [broken], num_values={}, max_results=2)


def test_findings_are_taken_rule_by_rule(tmp_path):
    frame = pd.DataFrame({"amount": [1.0, 9.0, 2.0]})
    rules = [rule(), rule(name="events.amount_tolerated", bound=0.5, severity="warning")]
    with open_project(tmp_path) as project:
        findings, page = project.run("shop_events", frame, rules, num_values={}, max_results=2)
    assert {name: found.success for name, found in findings.items()} == {
        "events.amount_small": False,
        "events.amount_tolerated": True,
    }
    assert findings["events.amount_small"].num_unexpected == 1
    assert findings["events.amount_small"].sample == ("9",)
    assert page.is_relative_to(tmp_path)
    assert "events.amount_tolerated" in page.read_text(encoding="utf-8")
    logo = page.parent.joinpath(*[".."] * 4, "static", "images", "logo-long.png")
    assert logo.resolve().exists()
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert len(pages) == 3
    assert all("dataContextId" not in text and "static/images/logo-long.png" in text for text in pages)
    configuration = (tmp_path / "gx" / "great_expectations.yml").read_text(encoding="utf-8")
    assert "analytics_enabled: false" in configuration
