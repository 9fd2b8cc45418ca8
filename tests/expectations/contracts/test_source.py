"""What a `source.toml` may declare, and how a wrong setting is refused."""

from datetime import datetime
from pathlib import Path

import pytest

from expectations.contracts.source import Source, read_source
from expectations.errors import SettingError

TABLES = '[tables.items]\nlocation = "items.csv"\n[tables.exposures]\nlocation = "exposures.csv"\n'


def declare(folder: Path, settings: str = "", tables: str = TABLES) -> Source:
    path = folder / "source.toml"
    path.write_text(f'name = "shop"\n{tables}{settings}', encoding="utf-8")
    return read_source(path)


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2017-09-01", datetime(2017, 9, 1)),
        ("2017-09-01T10:00:00", datetime(2017, 9, 1, 10)),
        ("2017-09-01T10:00:00+02:00", datetime(2017, 9, 1, 8)),
        ("2017-09-01T10:00:00Z", datetime(2017, 9, 1, 10)),
    ],
)
def test_test_from_is_the_utc_moment(tmp_path, written, utc):
    assert declare(tmp_path, f"[split]\ntest_from = {written}\n").test_from == utc


def test_outcome_window_is_days_by_scenario(tmp_path):
    assert declare(tmp_path).outcome_window == {}
    declared = declare(tmp_path, "[outcome_window]\ncampaign = 28\ndefault = 0.5\n")
    assert declared.outcome_window == {"campaign": 28.0, "default": 0.5}


@pytest.mark.parametrize("column", ["user_id", "item_id", "query"])
def test_whole_groups_can_be_kept_in_one_part(tmp_path, column):
    assert declare(tmp_path).split_by is None
    assert declare(tmp_path, f'[split]\nby = "{column}"\n').split_by == column


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('[split]\nby = "channel"\n', "by is 'channel'; use one of user_id, item_id, query"),
        ('[split]\nby = "query"\ntest_from = 2017-09-01\n', "leave out one"),
        ("[outcome_window]\ncampain = 28\n", "unknown setting 'campain'"),
        ("[outcome_window]\ncampaign = -1\n", "campaign is -1; use a number of days"),
        ("[outcome_window]\ncampaign = inf\n", "use a number of days"),
        ("[outcome_window]\ncampaign = true\n", "use a number of days"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, settings, says):
    with pytest.raises(SettingError, match=says):
        declare(tmp_path, settings)


def test_a_shop_without_exposures_is_told_what_to_bring(tmp_path):
    tables = '[tables.items]\nlocation = "items.csv"\n[tables.events]\nlocation = "events.csv"\n'
    with pytest.raises(
        SettingError, match=r"exposures\] is missing.*Bring exposures: what was shown or sent"
    ):
        declare(tmp_path, tables=tables)
