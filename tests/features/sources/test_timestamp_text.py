"""Timestamps as people write them: what is read, what is refused, what is proposed."""

from datetime import datetime, timedelta

import duckdb
import pytest

from expectations.contracts.file_format import FileFormat
from features.sources.tables.timestamp_text import propose, timestamp_from_text
from tests.features.sources.conftest import column

SHOWN = datetime(2024, 4, 17, 17, 22)


def timestamps(
    con: duckdb.DuckDBPyConnection, values: list[str], **declared: object
) -> list[datetime | None]:
    column(con, values)
    sql = f"SELECT {timestamp_from_text('t', FileFormat(**declared))} FROM told"  # type: ignore[arg-type]  # noqa: S608
    return [value for (value,) in con.execute(sql).fetchall()]


def test_what_begins_with_the_year_is_read_with_its_zone(con: duckdb.DuckDBPyConnection) -> None:
    same = ["2024-04-17 17:22", "2024-04-17T17:22:00", "2024-04-17T17:22:00Z", "2024-04-17 17:22:00.000 UTC"]
    same += ["2024/04/17 17:22", "2024-4-17 17:22:00", "2024-04-17 18:22:00 +0100", "2024-04-17 18:22:00+01"]
    same += [
        "2024-04-17T19:22:00+02:00[Europe/Berlin]",
        "2024-04-17T19:22[Europe/Berlin]",
        "20240417T172200Z",
    ]
    same += [
        "2024-04-17 19:22:00 Europe/Berlin",
        "2024-04-17 19:22 CEST",
        "2024-04-17 12:22 -0500",
        "20240417T1722",
    ]
    same += ["2024-04-17 17:22:00,000", "2024-04-17 19:22:00 GMT+0200", "2024-04-17T17:22:00Z[UTC]"]
    same += ["2024-04-17T17:22:00.000000000+00:00", "2024-04-17 22:52:00+0530", "2024.04.17 17:22"]
    assert dict(zip(same, timestamps(con, same), strict=True)) == dict.fromkeys(same, SHOWN)
    assert timestamps(con, ["2024-04-17", "2024-04-17T17:22:00.123456789Z"]) == [
        datetime(2024, 4, 17),
        SHOWN.replace(microsecond=123456),
    ]


def test_what_is_not_certain_is_no_timestamp(con: duckdb.DuckDBPyConnection) -> None:
    odd = [
        "17.04.2024",
        "03/04/2024",
        "1713374520",
        "20240417",
        "17 Apr 2024",
        "2024-04-17 17:22 CST",
        "infinity",
    ]
    odd += [
        "2024-04-17 05:22 PM",
        "2024-13-01",
        "2024-02-30",
        "2024-04-17 17:22 Nowhere/City",
        "2024",
        "45399.5",
    ]
    assert timestamps(con, odd) == [None] * len(odd)


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("s", ["1713374520", "1713374520.0"]),
        ("ms", ["1713374520000", "1.71337452e+12"]),
        ("us", ["1713374520000000"]),
        ("ns", ["1713374520000000000"]),
        ("excel", ["45399.72361111111", "45399,7236111111"]),
    ],
)
def test_numbers_are_timestamps_in_a_declared_unit(
    con: duckdb.DuckDBPyConnection, unit: str, values: list[str]
) -> None:
    assert all(
        abs(found - SHOWN) < timedelta(seconds=1) for found in timestamps(con, values, timestamp_unit=unit)
    )
    assert timestamps(con, ["2024-04-17 17:22"], timestamp_unit=unit) == [SHOWN]


def test_declared_formats_and_zones(con: duckdb.DuckDBPyConnection) -> None:
    formats = ("%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%a, %d %b %Y %H:%M:%S %z")
    values = [
        "17.04.2024 17:22",
        "04/17/2024 05:22 PM",
        "Wed, 17 Apr 2024 19:22:00 +0200",
        "2024-04-17 17:22",
    ]
    assert timestamps(con, [*values, "17/04/2024"], timestamp_format=formats) == [*[SHOWN] * 4, None]
    berlin = timestamps(
        con, ["17.04.2024 19:22", "2024-04-17 19:22", "2024-04-17T17:22Z"], timezone="Europe/Berlin"
    )
    assert berlin == [None, SHOWN, SHOWN]
    winter = timestamps(
        con, ["17.01.2024 18:22"], timezone="Europe/Berlin", timestamp_format=("%d.%m.%Y %H:%M",)
    )
    assert winter == [datetime(2024, 1, 17, 17, 22)]


@pytest.mark.parametrize(
    ("values", "proposal"),
    [
        (["17-04-2024 17:22", "09-05-2024 07:16"], 'timestamp_format = "%d-%m-%Y %H:%M"'),
        (["04/17/2024 5:22 PM"], 'timestamp_format = "%m/%d/%Y %I:%M %p"'),
        (
            ["03/04/2024"],
            'timestamp_format = "%d/%m/%Y" or "%m/%d/%Y": these values do not say which is the day',
        ),
        (["16 May 2024"], 'timestamp_format = "%d %b %Y"'),
        (["20240628", "20240101"], 'timestamp_format = "%Y%m%d"'),
        (
            ["1713374520"],
            'timestamp_unit = "s": 1713374520 looks like seconds since 1970 and would be 2024-04-17',
        ),
        (["1713374520000"], 'timestamp_unit = "ms"'),
        (["45399.72"], 'timestamp_unit = "excel": 45399.7 looks like a day number of a spreadsheet'),
        (
            ["18.09.2024", "20240628", "gestern"],
            'timestamp_format = ["%d.%m.%Y", "%Y%m%d"] (no format is known for',
        ),
        (["gestern"], 'timestamp_format, such as "%d.%m.%Y %H:%M", or write them as 2024-04-17 17:22:00'),
    ],
)
def test_the_message_proposes_what_to_declare(values: list[str], proposal: str) -> None:
    assert propose(values).startswith(proposal)
