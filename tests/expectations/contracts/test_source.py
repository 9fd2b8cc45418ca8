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
def test_test_from_is_a_utc_timestamp(tmp_path, written, utc):
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


@pytest.mark.parametrize(
    ("table", "extra", "says"),
    [
        ("exposures", "channel", "extra names channel, which exposures have by themselves; leave it out"),
        ("exposures", "Channel", "which exposures have by themselves"),
        ("exposures", "time", r"time, which is a name of this system.* shop_time = \"time\" }"),
        ("items", "price", "price, which is a name of this system"),
        ("users", "num_events", "which is a name of this system"),
        ("items", "_row", "must be a plain identifier"),
    ],
)
def test_an_extra_column_that_cannot_be_served_is_refused(tmp_path, table, extra, says):
    tables = TABLES.replace(f"[tables.{table}]", f'[tables.{table}]\nextra = {{ {extra} = "numeric" }}')
    if table == "users":
        tables += f'[tables.users]\nlocation = "users.csv"\nextra = {{ {extra} = "numeric" }}\n'
    with pytest.raises(SettingError, match=says):
        declare(tmp_path, tables=tables)


@pytest.mark.parametrize("wrong", ["5", '"x"', "[1]", "true", '["x"]', "{ a = 1 }", "2024-01-01"])
def test_a_setting_of_another_type_is_no_traceback(tmp_path, wrong):
    for name in ("tables", "database", "split", "outcome_window", "features", "connector", "clock", "name"):
        path = tmp_path / "source.toml"
        path.write_text(f"{name} = {wrong}\n" + ("" if name == "name" else 'name = "shop"\n'))
        with pytest.raises(SettingError):
            read_source(path)
    for name in (
        "location",
        "query",
        "columns",
        "constants",
        "extra",
        "format",
        "extra.colour",
        "columns.text",
    ):
        if (name, wrong) in {("location", '"x"'), ("query", '"x"'), ("columns.text", '"x"')}:
            continue
        with pytest.raises(SettingError):
            declare(tmp_path, tables=TABLES.replace("[tables.items]", f"[tables.items]\n{name} = {wrong}", 1))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ('encoding = "utf-7000"', "encoding is 'utf-7000'; use a name such as"),
        ('encoding = "base64"', "encoding is 'base64'"),
        ('delimiter = "ab"', "delimiter is 'ab'; use one character"),
        ('decimal = ";"', 'decimal is \';\'; use "." or ","'),
        ('decimal = ","\nthousands = ","', "must differ"),
        ('timestamp_format = "DD.MM.YYYY"', "write it as strftime"),
        ('timestamp_format = ["%d.%m.%Y", "%Q"]', "timestamp_format is '%Q'"),
        ('timestamp_unit = "days"', "use one of s, ms, us, ns, excel"),
        ('timezone = "Berlin"', 'use a name such as "Europe/Berlin"'),
        ('true_values = ["x"]\nfalse_values = ["X"]', "'x' is in true_values and in false_values"),
        ("true_values = [1]", "true_values is 1; write a text"),
        ('dezimal = ","', "unknown setting 'dezimal'"),
    ],
)
def test_a_wrong_format_is_refused(tmp_path, written, says):
    with pytest.raises(SettingError, match=rf"\[tables.items.format\].*{says}"):
        declare(tmp_path, tables=TABLES + f"[tables.items.format]\n{written}\n")


def test_a_format_is_read(tmp_path):
    written = 'encoding = "cp1252"\ntimestamp_format = "%d.%m.%Y"\ntrue_values = ["x", "ok"]\nquote = ""\n'
    form = declare(tmp_path, tables=TABLES + f"[tables.items.format]\n{written}").tables["items"].format
    assert (form.encoding, form.timestamp_format, form.true_values) == ("cp1252", ("%d.%m.%Y",), ("x", "ok"))
    assert (form.quote, form.decimal, form.timezone) == ("", None, None)
