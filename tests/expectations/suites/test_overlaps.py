"""Ids that do not meet, and outcomes from which nothing can be learned, stop a run with a sentence."""

from pathlib import Path

import pytest

from expectations.suites.report import TableReport
from expectations.suites.run import validate
from tests.expectations.shops import NOW, SHOP_CONTRACTS, Rows, good_shop, write_shop


def run(home: Path, rows: Rows) -> dict[str, TableReport]:
    return validate(
        write_shop(home / "tables", rows),
        SHOP_CONTRACTS,
        checked_dir=home / "checked" / "shop",
        quarantine_dir=home / "quarantine" / "shop",
        gx_dir=home / "gx",
        now=NOW,
    )


def blocking(reports: dict[str, TableReport]) -> dict[str, str]:
    return {check.rule: check.message for report in reports.values() for check in report.blocking}


def test_float_ids_block_where_behaviour_would_be_lost_in_silence(tmp_path):
    """`shared/cases/12b` and `08`: a pandas column with gaps."""
    rows = good_shop()
    for row in rows["users"] + rows["events"] + rows["exposures"] + rows["feedback"]:
        row["user_id"] = str(1000 + int(row["user_id"][1:]))
    for row in rows["events"]:
        row["user_id"] += ".0"
    for row in rows["exposures"]:
        row["item_id"] = str(2000 + int(row["item_id"][1:]))
    rows["items"] += [{**row, "item_id": f"{2000 + n}.0"} for n, row in enumerate(rows["items"])]
    reports = run(tmp_path, rows)
    found = blocking(reports)
    assert list(found) == [
        "events.user_id_met_in_users",
        "exposures.item_id_known",
        "exposures.user_id_met_in_events",
    ]
    assert found["events.user_id_met_in_users"] == (
        "events.user_id: it does not hold that at least 2% of the ids in user_id or in users, whichever are fewer, "
        "are in both (40 rows, found: 0). users has ids such as 1000, 1001, 1002; 20 of 20 missing ids would be "
        "found as whole numbers, such as '1000.0' as '1000'. A column of numbers with gaps becomes "
        'decimals: write it as whole numbers or as text (pandas: astype("Int64"), or read it with dtype=str).'
    )
    assert "items has ids such as 2000.0, 2001.0, 2002.0" in found["exposures.item_id_known"]
    assert "such as '2000' as '2000.0'" in found["exposures.item_id_known"]
    assert "60 of 60 rows" in found["exposures.item_id_known"]
    (check,) = reports["events"].blocking
    assert (check.num_failed, reports["events"].num_quarantined) == (40, 0)
    assert check.sample[:3] == ("user_id=1000.0", "user_id=1001.0", "user_id=1002.0")


def test_other_shoppers_and_products_block_and_few_in_common_do_not(tmp_path):
    rows = good_shop()
    rows["users"] += [{"user_id": f"m{n}"} for n in range(100)]
    rows["events"] = [{**row, "user_id": f"m{n}"} for n, row in enumerate(rows["events"])]
    rows["feedback"] = [
        {**rows["feedback"][0], "feedback_id": f"f{n}", "user_id": f"stranger {n}"} for n in range(10)
    ]
    rows["relations"] = [
        {"source_id": "i0", "relation": relation, "target_id": f"p{n}"}
        for n in range(10)
        for relation in ("covers", "is near")
    ]
    found = blocking(run(tmp_path / "apart", rows))
    assert list(found) == [
        "exposures.user_id_met_in_events",
        "feedback.user_id_met_in_users_events_exposures",
        "relations.target_id_met_in_items",
    ]
    assert "users and events and exposures have ids such as m0" in list(found.values())[1]
    rows["events"][0]["user_id"] = rows["feedback"][0]["user_id"] = "u0"  # most people get no mail
    rows["relations"][0]["target_id"] = "i5"
    assert blocking(run(tmp_path / "few", rows)) == {}


@pytest.mark.parametrize(
    ("columns", "degenerate"),
    [
        ({"outcome": 1.0}, True),
        ({"outcome": 2.0}, True),
        ({"outcome": None, "impressions": 5, "clicks": 0}, True),
        ({"outcome": None, "impressions": 5, "clicks": 1}, False),
    ],
    ids=["only positives", "one grade", "no clicks", "clicks"],
)
def test_outcomes_that_are_all_equal_block(tmp_path, columns, degenerate):
    """`shared/cases/18`, and the same of grades and of aggregates."""
    exposures = [
        {**row, "user_id": None, "outcome_timestamp": None, **columns} for row in good_shop()["exposures"]
    ]
    reports = run(tmp_path, {"items": good_shop()["items"], "exposures": exposures})
    found = blocking(reports)
    assert list(found) == (["exposures.outcome_not_degenerate"] if degenerate else [])
    assert all("60 rows, found: " in text for text in found.values())
    assert all("Bring exposures with and without an answer" in text for text in found.values())
    warned = {check.rule for check in reports["exposures"].warnings}
    assert warned <= {"exposures.positive_outcome_has_time"}  # anonymous readers are no fault


def test_a_part_of_the_ids_spelled_otherwise_is_warned_of_with_its_cause(tmp_path):
    rows = good_shop()
    for row in rows["events"][::2]:
        row["user_id"] = row["user_id"].upper()
    reports = run(tmp_path, {name: rows[name] for name in ("users", "items", "events", "exposures")})
    assert blocking(reports) == {}
    (check,) = reports["events"].warnings
    assert (check.rule, check.num_failed) == ("events.user_id_known", 20)
    assert "10 of 10 missing ids would be found in the same case, such as 'U0' as 'u0'" in check.message
