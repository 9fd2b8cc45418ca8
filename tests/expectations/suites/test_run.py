"""Validation of whole shops: a good one, and one that breaks every rule once."""

import json
import re
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from expectations.contracts.schema import QUARANTINE_SCHEMA
from expectations.contracts.shop_tables import COLD_START_USER
from expectations.errors import SchemaError
from expectations.storage.masking import read_mask
from expectations.suites.report import CheckReport, TableReport
from expectations.suites.rules import Settings
from expectations.suites.run import SPILL, table_rules, validate
from tests.expectations.bad_shop import NUM_FAILED, bad_shop
from tests.expectations.shops import (
    NOW,
    SHOP_CONTRACTS,
    Rows,
    good_shop,
    read_rows,
    write_shop,
    write_table,
)

TOLERATED = (
    "tolerance missing_text odd_text unknown_outcome missing_outcome_time unknown_user outside_validity"
)
STRICT = Settings(**dict.fromkeys(f"{TOLERATED} null_extra outliers".split(), 0.0))  # type: ignore[arg-type]
Ran = tuple[Path, dict[str, Path], dict[str, TableReport]]


def run(home: Path, tables: dict[str, Path], **options: object) -> dict[str, TableReport]:
    settings = {"now": NOW, "contracts": SHOP_CONTRACTS, **options}
    return validate(
        tables,
        checked_dir=home / "checked" / "shop",
        quarantine_dir=home / "quarantine" / "shop",
        gx_dir=home / "gx",
        **settings,  # type: ignore[arg-type]
    )


def run_rows(home: Path, rows: Rows) -> Ran:
    tables = write_shop(home / "tables", rows)
    return home, tables, run(home, tables, settings=STRICT)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_rows(tmp_path_factory.mktemp("good"), good_shop())


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_rows(tmp_path_factory.mktemp("bad"), bad_shop())


def small_shop() -> Rows:
    """Only what a shop must bring."""
    rows = good_shop()
    return {"items": rows["items"], "exposures": rows["exposures"]}


def keys_of(table: str, rows: list[dict]) -> list[str]:
    return sorted(str([row[name] for name in SHOP_CONTRACTS[table].key]) for row in rows)


def check_of(reports: dict[str, TableReport], rule: str) -> CheckReport:
    table = rule.split(".", maxsplit=1)[0]
    return next(check for check in reports[table].checks if check.rule == rule)


def test_good_shop_passes_every_rule(good):
    _, _, reports = good
    failed = [check.message for report in reports.values() for check in report.checks if not check.passed]
    assert failed == []
    for name, contract in SHOP_CONTRACTS.items():
        asked = {rule.name for rule in table_rules(contract, SHOP_CONTRACTS, STRICT)}
        assert {check.rule for check in reports[name].checks} == asked


def test_what_another_validation_spills_is_left_alone_where_nothing_is_checked(good):
    home, tables, _ = good
    spilled = home / "checked" / "shop" / SPILL / "of another process"
    spilled.mkdir(parents=True)
    run(home, tables, settings=STRICT)
    assert spilled.exists()


def test_good_rows_go_on_as_they_are(good):
    home, tables, reports = good
    for name, report in reports.items():
        assert (report.num_checked, report.num_quarantined) == (report.num_rows, 0)
        assert read_rows(report.folder) == read_rows(tables[name])
        files = sorted(file.relative_to(report.folder) for file in report.folder.rglob("*.parquet"))
        assert files == sorted(file.relative_to(tables[name]) for file in tables[name].rglob("*.parquet"))
    assert not list((home / "quarantine").rglob("*.parquet"))


def test_every_rule_on_rows_is_broken_in_the_bad_shop():
    on_rows = {
        rule.name
        for contract in SHOP_CONTRACTS.values()
        for rule in table_rules(contract, SHOP_CONTRACTS, STRICT)
        if rule.per_row
    }
    assert on_rows == set(NUM_FAILED)


@pytest.mark.parametrize("rule", NUM_FAILED)
def test_rule_fails_in_the_rows_that_break_it(bad, rule):
    check = check_of(bad[2], rule)
    assert not check.passed
    assert check.num_failed == NUM_FAILED[rule]
    assert check.fraction_failed == pytest.approx(NUM_FAILED[rule] / bad[2][check.table].num_rows)
    assert check.sample
    assert check.table in check.message
    assert f"{NUM_FAILED[rule]} of {bad[2][check.table].num_rows} rows" in check.message


def test_masked_reports_tell_no_value_of_a_shopper_and_the_quarantine_tells_all(tmp_path):
    mask = read_mask(tmp_path / "key")
    assert read_mask(tmp_path / "key") == mask and (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    rows = bad_shop()
    user = {**rows["users"][0], "age": 30.0}
    rows["users"] += [{**user, "user_id": "Stranger"}] * 2 + [{**user, "user_id": "old", "age": float("inf")}]
    contracts = {**SHOP_CONTRACTS, "users": SHOP_CONTRACTS["users"].with_extras({"age": "numeric"})}
    tables = {name: write_table(tmp_path / name, contracts[name], rows[name]) for name in rows}
    reports = run(tmp_path, tables, contracts=contracts, settings=STRICT, mask=mask)

    unique = check_of(reports, "users.key_unique")
    assert mask("user_id", "Stranger") in unique.sample
    known = check_of(reports, "events.user_id_known")
    assert mask("user_id", "stranger") in known.sample
    assert f"{mask('user_id', 'stranger')!r} as {mask('user_id', 'Stranger')!r}" in known.message
    assert check_of(reports, "users.numbers_finite").sample == (
        f"{mask('user_id', 'old')}, {mask('age', 'inf')}",
    )
    assert all(sample.startswith("event_id=") for sample in check_of(reports, "events.user_id_given").sample)
    people = {
        row["user_id"] for row in rows["users"] + rows["events"] if row["user_id"] and row["user_id"].strip()
    }
    for report in reports.values():
        for check in report.checks:
            words = set(re.findall(r"[\w.]+", f"{check.sample} {check.message.replace(COLD_START_USER, '')}"))
            assert not words & people, check
    quarantined = read_rows(tmp_path / "quarantine" / "shop" / "users")
    assert any("Stranger" in row["row"] and "Stranger" in row["reason"] for row in quarantined)


@pytest.mark.parametrize("table", SHOP_CONTRACTS)
def test_nothing_is_lost(bad, table):
    home, tables, reports = bad
    report = reports[table]
    landed = read_rows(tables[table])
    checked = read_rows(report.folder)
    quarantined = read_rows(home / "quarantine" / "shop" / table)
    assert report.num_rows == len(landed)
    assert report.num_checked == len(checked)
    assert report.num_quarantined == len(quarantined)
    assert len(landed) == len(checked) + len(quarantined)
    together = [*checked, *(json.loads(row["row"]) for row in quarantined)]
    assert keys_of(table, together) == keys_of(table, landed)


@pytest.mark.parametrize("table", SHOP_CONTRACTS)
def test_schema_and_layout_stay(bad, table):
    report = bad[2][table]
    for file in report.folder.rglob("*.parquet"):
        assert pq.read_schema(file).equals(SHOP_CONTRACTS[table].schema)
        assert file.name == "part-0.parquet"
        assert (file.parent != report.folder) == (SHOP_CONTRACTS[table].event_time is not None)


def test_quarantine_gives_reason_and_value(bad):
    home = bad[0]
    file = home / "quarantine" / "shop" / "exposures" / "validation.parquet"
    assert pq.read_schema(file).equals(QUARANTINE_SCHEMA)
    rows = {json.loads(row["row"])["exposure_id"]: row for row in pq.ParquetFile(file).read().to_pylist()}
    assert rows["g"]["table"] == "exposures"
    assert rows["g"]["stage"] == "validation"
    assert rows["g"]["reason"] == "exposures.item_id_known: item_id=nowhere"
    assert rows["h"]["reason"] == "exposures.item_id_known: item_id=c"
    assert "exposures.outcome_not_before_exposure: event_timestamp=" in rows["m"]["reason"]
    future = rows["f"]["reason"]
    assert future == "exposures.event_timestamp_not_in_future: event_timestamp=2026-06-02 00:00:00"
    assert not {"q", "r", "s", "t"} & set(rows)  # warnings keep their rows


def test_a_row_that_breaks_two_rules_is_quarantined_once_with_both(bad):
    rows = read_rows(bad[0] / "quarantine" / "shop" / "exposures")
    (reason,) = [row["reason"] for row in rows if json.loads(row["row"])["exposure_id"] == "u"]
    assert reason.split("; ") == [
        "exposures.position_in_bounds: position=-1",
        "exposures.item_id_known: item_id=nowhere",
    ]


def test_first_row_of_a_key_stays(bad):
    checked = read_rows(bad[2]["events"].folder)
    assert [row["event_id"] for row in checked].count("e0") == 1
    quarantined = read_rows(bad[0] / "quarantine" / "shop" / "events")
    assert sum("events.key_unique: event_id=e0" in row["reason"] for row in quarantined) == 2
    message = check_of(bad[2], "events.key_unique").message
    assert "All but the first of each key are in quarantine." in message


def test_page_names_rules(bad):
    for name, report in bad[2].items():
        page = report.data_docs.read_text(encoding="utf-8")
        assert report.data_docs.suffix == ".html"
        assert all(check.rule in page for check in report.checks), name


@pytest.mark.slow
def test_tolerated_rows_go_to_quarantine_and_the_check_passes(tmp_path):
    rows = small_shop()
    rows["exposures"][3]["item_id"] = "nowhere"
    tables = write_shop(tmp_path / "tables", rows)
    within = run(tmp_path, tables, settings=Settings(tolerance=1 / 60))["exposures"]
    check = check_of({"exposures": within}, "exposures.item_id_known")
    assert check.passed
    assert (check.num_failed, within.num_quarantined, within.blocking) == (1, 1, ())
    beyond = run(tmp_path, tables, settings=Settings(tolerance=1 / 61))["exposures"]
    assert not beyond.unchanged  # the settings are others
    assert [check.rule for check in beyond.blocking] == ["exposures.item_id_known"]
    assert beyond.num_quarantined == 1


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TableReport]:
    """A shop with warnings only, and one bad position among two."""
    home = tmp_path_factory.mktemp("odd")
    rows = small_shop()
    for row in rows["items"]:
        row["text"] = None
    for row in rows["exposures"]:
        row |= {"user_id": "u1", "item_id": "i1", "position": None}
    rows["exposures"][0]["position"] = 0
    rows["exposures"][1]["position"] = 1
    return run(home, write_shop(home / "tables", rows), settings=Settings(tolerance=0.02))


def test_warnings_do_not_block(odd):
    assert [check.rule for check in odd["items"].warnings] == ["items.text_present"]
    failed = {check.rule for check in odd["exposures"].warnings}
    assert failed == {"exposures.enough_shoppers", "exposures.enough_items"}
    assert odd["items"].blocking == odd["exposures"].blocking == ()
    assert odd["items"].num_quarantined == 0


def test_tolerance_is_a_fraction_of_rows_not_of_values(odd):
    check = check_of(odd, "exposures.position_in_bounds")
    assert check.passed  # half of the two values, a sixtieth of the rows
    assert check.fraction_failed == pytest.approx(1 / 60)
    assert odd["exposures"].num_quarantined == 1


@pytest.mark.parametrize(
    "outcome", [None, pytest.param(True, marks=pytest.mark.slow), pytest.param(False, marks=pytest.mark.slow)]
)
def test_equal_outcomes_block(tmp_path, outcome):
    rows = small_shop()
    for row in rows["exposures"]:
        row["outcome"] = outcome
        row["outcome_timestamp"] = row["event_timestamp"] if outcome else None
    report = run(tmp_path, write_shop(tmp_path / "tables", rows))["exposures"]
    assert [check.rule for check in report.blocking] == ["exposures.outcome_not_degenerate"]
    assert report.blocking[0].fraction_failed == 1.0


@pytest.mark.slow
def test_a_declared_column_may_be_empty_for_item_types_that_never_have_it(tmp_path):
    rows = small_shop()
    product = {**rows["items"][0], "item_type": "product", "discount": None}
    rows["items"] += [{**product, "item_id": f"p{number}"} for number in range(990)]
    report = run(tmp_path, write_shop(tmp_path / "tables", rows))["items"]
    assert check_of({"items": report}, "items.discount_mostly_given").num_failed == 0
    for row in rows["items"]:
        row["discount"] = None
    report = run(tmp_path, write_shop(tmp_path / "none", rows))["items"]
    assert [check.rule for check in report.warnings] == ["items.discount_mostly_given"]
    assert report.warnings[0].num_failed == 1000


@pytest.mark.parametrize("table", [pytest.param("users", marks=pytest.mark.slow), "events"])
def test_table_without_rows_blocks(tmp_path, table):
    rows = small_shop() | {table: []}
    report = run(tmp_path, write_shop(tmp_path / "tables", rows))[table]
    assert [check.rule for check in report.blocking] == [f"{table}.rows"]
    assert read_rows(report.folder) == []


def test_missing_column_is_a_schema_error_with_a_page(tmp_path):
    tables = write_shop(tmp_path / "tables", small_shop() | {"users": good_shop()["users"]})
    path = tables["users"] / "part-0.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["created_at"]), path)
    with pytest.raises(SchemaError, match=r"table users .* lacks the column created_at") as error:
        run(tmp_path, tables)
    page = Path(str(error.value).split("see ")[1].rstrip(")"))
    assert "users.columns" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "checked" / "shop" / "users").exists()


def test_wrong_type_and_unknown_column_are_schema_errors(tmp_path):
    tables = write_shop(tmp_path / "tables", small_shop() | {"users": good_shop()["users"]})
    path = tables["users"] / "part-0.parquet"
    users = pq.read_table(path)
    pq.write_table(users.append_column("shoe_size", users["user_id"]), path)
    with pytest.raises(SchemaError, match="column shoe_size"):
        run(tmp_path, tables)
    pq.write_table(users.set_column(1, "created_at", users["user_id"]), path)
    with pytest.raises(SchemaError, match="created_at is string, not timestamp"):
        run(tmp_path, tables)


def test_missing_and_unknown_tables_are_schema_errors(tmp_path):
    tables = write_shop(tmp_path / "tables", good_shop())
    with pytest.raises(SchemaError, match="items is required"):
        run(tmp_path, {"exposures": tables["exposures"]})
    with pytest.raises(SchemaError, match="table pets has no contract"):
        run(tmp_path, {**tables, "pets": tables["users"]})


def test_second_call_computes_nothing(good):
    home, tables, first = good
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    second = run(home, tables, settings=STRICT)
    after = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    assert after == before
    assert second == {name: replace(report, unchanged=True) for name, report in first.items()}
    later = run(home, tables, settings=STRICT, now=NOW + timedelta(days=400))
    assert all(report.unchanged for report in later.values())  # nothing was in the future


@pytest.mark.slow
def test_a_row_leaves_the_future_as_time_goes_on(tmp_path):
    rows = small_shop()
    rows["exposures"][3]["event_timestamp"] = NOW + timedelta(days=1)
    tables = write_shop(tmp_path / "tables", rows)
    assert run(tmp_path, tables)["exposures"].num_quarantined == 1
    eastern = timezone(timedelta(hours=9))
    later = run(tmp_path, tables, now=(NOW + timedelta(days=1, hours=9)).replace(tzinfo=eastern))
    assert {name for name, report in later.items() if not report.unchanged} == {"exposures"}
    assert later["exposures"].num_quarantined == 0
    assert not (tmp_path / "quarantine" / "shop" / "exposures" / "validation.parquet").exists()


@pytest.mark.slow
def test_other_items_check_exposures_again_and_lost_output_is_made_again(tmp_path):
    rows = small_shop() | {"users": good_shop()["users"]}
    tables = write_shop(tmp_path / "tables", rows)
    run(tmp_path, tables)
    fewer = deepcopy(rows["items"])[1:]
    tables["items"] = write_table(tmp_path / "tables" / "items" / "v2", SHOP_CONTRACTS["items"], fewer)
    second = run(tmp_path, tables)
    assert {name for name, report in second.items() if report.unchanged} == {"users"}
    assert second["exposures"].num_quarantined == 6
    (tmp_path / "quarantine" / "shop" / "exposures" / "validation.parquet").unlink()
    second["users"].data_docs.unlink()
    third = run(tmp_path, tables)
    assert {name for name, report in third.items() if not report.unchanged} == {"users", "exposures"}
    assert len(read_rows(tmp_path / "quarantine" / "shop" / "exposures")) == 6
    assert third["users"].data_docs.exists()
    assert all(report.unchanged for report in run(tmp_path, tables).values())


@pytest.mark.slow
def test_results_do_not_pile_up_and_absent_tables_go(tmp_path):
    rows = {name: good_shop()[name] for name in ("items", "exposures", "users")}
    tables = write_shop(tmp_path / "tables", rows)
    for tolerance in (0.01, 0.02, 0.03):
        reports = run(tmp_path, tables, settings=Settings(tolerance=tolerance, max_results=2))
    assert len(list((tmp_path / "gx").rglob("validations/shop_items/**/*.json"))) == 2
    assert len(list((tmp_path / "gx").rglob("validations/shop_items/**/*.html"))) == 2
    assert reports["items"].data_docs.exists()
    del tables["users"]
    reports = run(tmp_path, tables)
    assert "exposures.user_id_known" not in {check.rule for check in reports["exposures"].checks}
    assert not (tmp_path / "checked" / "shop" / "users").exists()
