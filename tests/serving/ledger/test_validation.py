"""A row is judged in the ledger as it is in a file: the same values, the same reasons."""

import json
from datetime import datetime

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from expectations.contracts.ledger import OUTCOMES, ledger_contracts
from expectations.contracts.shop_tables import CONTRACTS
from expectations.contracts.source import read_source
from expectations.suites.engine import open_duckdb
from expectations.suites.rules import Settings
from expectations.suites.run import validate
from features.sources.landing import ingest
from serving.ledger.validation import Validator
from tests.ledgers import event, exposure

NOW = datetime(2026, 11, 29, 12)


@pytest.fixture(scope="module")
def validator():
    with open_duckdb(None) as connection:
        yield Validator(ledger_contracts(CONTRACTS), connection)


def reason(validator, table, row):
    (checked,) = validator.check(table, [row], NOW)
    return checked.reason


EVENTS = [
    event("fine", amount=2.5, quantity="3", item_id="i 1"),
    event("float", item_id=200.0, user_id=17, session_id="200.0", place="12.50"),
    event("words", channel="NULL", place=" north ", item_id="", amount="n/a"),
    event("zone", event_timestamp="2026-11-28T23:30:00-02:00"),
    event("space", event_timestamp="2026-11-28 23:30"),
    event("bool", place=True, amount=False),
    event("kind", event_type="hug"),
    event("below", amount=-1, quantity=-0.5),
    event("text number", amount="many"),
    event("no time", event_timestamp="soon"),
    event("nobody", user_id=None),
    event("blank", user_id=" "),
    event("reserved", user_id="__cold_start_user__"),
    event("rounded", user_id="1.23E+12"),
    event("later", event_timestamp="2026-12-01T00:00:00Z"),
    event("infinite", amount="inf"),
    event("two", event_type="hug", amount=-3),
]
EXPOSURES = [
    exposure("fine", outcome=1, outcome_timestamp="2026-11-29T11:00:00Z", position=1.0),
    exposure("yes", outcome="yes", outcome_timestamp="2026-11-29T11:00:00Z"),
    exposure("grade", outcome=99),
    exposure("half", outcome=0.5),
    exposure("word", outcome="maybe"),
    exposure("before", outcome=1, outcome_timestamp="2026-11-28"),
    exposure("negative", outcome=0, outcome_timestamp="2026-11-29T11:00:00Z"),
    exposure("place", position=0),
    exposure("broken place", position=1.5),
    exposure("probable", propensity=1.5),
    exposure("aggregate", user_id=None, impressions=10, clicks=11),
    exposure("both", user_id=None, impressions=10, clicks=1, outcome=1),
    exposure("one", user_id=None, impressions=10),
    exposure("scene", scenario="mars"),
]


@pytest.mark.parametrize(("table", "rows"), [("events", EVENTS), ("exposures", EXPOSURES)])
def test_values_and_reasons_are_those_of_the_same_rows_in_a_file(validator, tmp_path, table, rows):
    values, reasons = from_a_file(tmp_path, table, rows)
    key = f"{table[:-1]}_id"
    for row, checked in zip(rows, validator.check(table, rows, NOW), strict=True):
        name = row[key]
        assert checked.reason == reasons.get(name, ""), name
        if not checked.reason:
            assert dict(checked.values) == {k: v for k, v in values[name].items() if v is not None}, name


def from_a_file(tmp_path, table, rows):
    """By key: the values that landed and passed, and the reasons why a row did not."""
    tables = {
        "items": [{"item_id": "c1", "item_type": "campaign"}, {"item_id": "i 1", "item_type": "product"}]
    }
    tables["items"].append({"item_id": "200", "item_type": "product"})
    tables["exposures"] = [exposure()]
    tables[table] = rows
    declared = ['name = "shop"']
    for name, content in tables.items():
        columns = dict.fromkeys(column for row in content for column in row)
        lines = [",".join(columns)] + [
            ",".join(_csv(row.get(column)) for column in columns) for row in content
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        declared.append(f'[tables.{name}]\nlocation = "{name}.csv"\nformat = {{ decimal = "." }}')
    (tmp_path / "source.toml").write_text("\n".join(declared))
    source = read_source(tmp_path / "source.toml")
    folders = {"tables_dir": tmp_path / "tables" / "shop", "quarantine_dir": tmp_path / "quarantine" / "shop"}
    landed = ingest(source, **folders, tolerance=1.0)
    reports = validate(
        {name: one.folder for name, one in landed.items()},
        source.contracts(),
        checked_dir=tmp_path / "checked" / "shop",
        quarantine_dir=folders["quarantine_dir"],
        gx_dir=tmp_path / "gx",
        now=NOW,
        settings=Settings(tolerance=1.0),
    )
    key = f"{table[:-1]}_id"
    passed = ds.dataset(reports[table].folder).to_table().select(CONTRACTS[table].schema.names).to_pylist()
    kept = [
        row
        for stage in ("ingestion", "validation")
        if (path := folders["quarantine_dir"] / table / f"{stage}.parquet").exists()
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    reasons = {json.loads(row["row"])[key]: row["reason"] for row in kept}
    return {row[key]: row for row in passed}, reasons


def _csv(value):
    return "" if value is None else f'"{value}"'


def test_what_only_a_program_can_send_is_told_too(validator):
    assert "colour: events has no such column" in reason(validator, "events", event(colour="red"))
    assert reason(validator, "events", event(place="a\0b")) == (
        "place: it has the character NUL, which cannot be kept"
    )
    assert reason(validator, "events", event(place="\ud800")) == "place: its bytes are not UTF-8"
    assert reason(validator, "events", event(user_id={"a": 1})) == "user_id: '{\"a\": 1}' is not text"
    assert reason(validator, "events", event(event_timestamp=1764410000)) == (
        "event_timestamp: '1764410000' is not a timestamp"
    )
    assert "a row is an object" in reason(validator, "events", ["e1", "u1"])
    decision = {"decision_id": "d", "scenario": "campaign", "event_timestamp": "2026-01-01"}
    assert reason(validator, "decisions", {**decision, "candidates": [{"a": ["\0"]}]}).startswith(
        "candidates: "
    )
    assert reason(validator, "decisions", {**decision, "propensities": [float("nan")]}).startswith(
        "propensities"
    )


def test_an_outcome_is_judged_by_the_rules_of_exposures(validator):
    outcome = {"outcome_id": "o", "exposure_id": "x", "outcome": 1, "outcome_timestamp": "2026-11-29"}
    assert reason(validator, OUTCOMES.name, outcome) == ""
    assert reason(validator, OUTCOMES.name, {**outcome, "outcome": 44}).startswith(
        "exposures.outcome_is_grade: "
    )
    assert "outcome: the required value is missing" in reason(
        validator, OUTCOMES.name, {**outcome, "outcome": None}
    )
    assert "outcomes.outcome_timestamp_not_in_future" in reason(
        validator, OUTCOMES.name, {**outcome, "outcome_timestamp": "2027-01-01"}
    )
