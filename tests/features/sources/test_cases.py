"""Every folder of the shared cases, shops as real people export them, does what its README says."""

import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from expectations.contracts.source import read_source
from expectations.errors import DataError, SchemaError
from features.sources.__main__ import main
from features.sources.landing import LandedTable, ingest

ROOT = Path(__file__).parents[3]
CASES = Path(os.environ.get("SHARED_CASES") or ROOT.parent / "shared" / "cases")
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"{CASES} is not there (SHARED_CASES names the folder of cases)"
)

SHOWN = datetime(2024, 4, 17, 17, 22)
"""When X0 was shown, as the cases write it; E0 happened on 2024-04-02 at 20:49."""
MIXED_DATES = """
[tables.events.format]
timestamp_format = ["%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d.%m.%Y", "%Y/%m/%d %H:%M", "%d %b %Y", "%Y%m%d",
    "%d-%m-%y", "%y-%m-%d"]
"""


class Case:
    """A copy of one case, with settings added to its declaration."""

    def __init__(self, name: str, settings: str, folder: Path) -> None:
        shutil.copytree(CASES / name, folder / name, copy_function=shutil.copyfile)
        self.source = next((folder / name).rglob("source.toml"))
        for made in (folder / name).rglob("*"):
            made.chmod(0o755 if made.is_dir() else 0o644)
        self.source.write_text(self.source.read_text() + settings)
        self.home = folder / "home"

    def ingest(self) -> dict[str, LandedTable]:
        return ingest(
            read_source(self.source), tables_dir=self.home / "tables", quarantine_dir=self.home / "quarantine"
        )

    def rows(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Table -> key -> row."""
        contracts = read_source(self.source).contracts()
        return {
            name: {
                row[contracts[name].key[0]]: row
                for row in ds.dataset(sorted(table.folder.rglob("*.parquet"))).to_table().to_pylist()
            }
            for name, table in self.ingest().items()
        }


@pytest.mark.parametrize(
    ("name", "settings", "shown"),
    [
        (
            "01a-dates-dmy",
            '\n[tables.exposures.format]\ntimestamp_format = "%d-%m-%Y %H:%M"\n' + MIXED_DATES,
            SHOWN,
        ),
        ("01b-dates-events", MIXED_DATES, SHOWN),
        ("02a-german-excel-cp1252", '\n[tables.items.format]\nencoding = "windows-1252"\n', SHOWN),
        ("02b-german-excel-utf8bom", "", SHOWN),
        ("02c-thousand-dots", '\n[tables.events.format]\ndecimal = ","\nthousands = "."\n', SHOWN),
        ("02e-sep-line", "", SHOWN),
        ("06-epoch-millis", '\n[tables.exposures.format]\ntimestamp_unit = "ms"\n', SHOWN),
        ("07-zones", "", datetime(2024, 3, 31, 10)),
        ("07b-shopify-offset", "", datetime(2024, 4, 17, 16, 22)),
        ("08-float-ids-csv", "", SHOWN),
        ("09-booleans", '\n[tables.exposures.format]\ntrue_values = ["x"]\nfalse_values = ["-"]\n', SHOWN),
        ("10b-glob", "", SHOWN),
        ("12b-user-id-floats", "", SHOWN),
        ("14a-pandas-utc-parquet", "", SHOWN),
        ("14b-parquet-types", "", datetime(2024, 4, 17, 15, 22)),
        ("15-pandas-csv", "", SHOWN),
        ("18-only-positives", "", SHOWN),
    ],
)
def test_a_case_is_read_whole(name: str, settings: str, shown: datetime, tmp_path: Path) -> None:
    case = Case(name, settings, tmp_path)
    landed = case.ingest()
    assert landed["exposures"].num_rows == 300
    assert sum(table.num_rejected for table in landed.values()) == 0
    tables = case.rows()
    exposures = tables["exposures"]
    assert next(iter(exposures[key] for key in ("X0", "0") if key in exposures))["event_timestamp"] == shown
    if "events" in tables and not name.startswith("14"):
        day = datetime(2024, 4, 2, 20, 49)
        assert tables["events"]["E0"]["event_timestamp"] == day
        amounts = {"02a": (1041, 2.78), "02b": (1041, 2.78), "02c": (1234, 12.5)}.get(name[:3], (10.41, 2.78))
        assert tuple(tables["events"][key]["amount"] for key in ("E0", "E1")) == amounts
    for one in ("events", "exposures"):  # what is shown and bought is known: no identifier has a ".0"
        items = {row["item_id"] for row in tables.get(one, {}).values()} - {None}
        assert items <= tables["items"].keys()
        assert {row["user_id"] for row in tables.get(one, {}).values()} <= tables.get(
            "users", exposures
        ).keys() or (name.startswith("14a"))


def test_outcomes_are_what_their_words_say(tmp_path: Path) -> None:
    said = Case(
        "09-booleans", '\n[tables.exposures.format]\ntrue_values = ["x"]\nfalse_values = ["-"]\n', tmp_path
    )
    plain = Case("02e-sep-line", "", tmp_path)
    outcomes = [
        {key: row["outcome"] for key, row in case.rows()["exposures"].items()} for case in (said, plain)
    ]
    assert outcomes[0] == outcomes[1]
    pandas = Case("15-pandas-csv", "", tmp_path).rows()["exposures"]
    assert {
        key: row["outcome"] for key, row in pandas.items() if row["outcome"] is not None
    }.items() <= outcomes[1].items()
    assert sum(row["outcome"] is None for row in pandas.values()) == 15


def test_zones_are_converted(tmp_path: Path) -> None:
    exposures = Case("07-zones", "", tmp_path).rows()["exposures"]
    hours = [exposures[f"X{number}"]["event_timestamp"] for number in range(9)]
    expected = [(10, 0), (10, 0), (12, 0), (12, 0), (11, 0), (10, 0), (17, 30), (10, 0), (17, 0)]
    assert hours == [datetime(2024, 3, 31, hour, minute) for hour, minute in expected]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "01a-dates-dmy",
            DataError,
            r'300 rows.*\[tables.exposures.format\]: set timestamp_format = "%d-%m-%Y %H:%M"\.',
        ),
        (
            "01b-dates-events",
            DataError,
            r"525 of 600 rows are rejected .87.5%.*'18.09.2024'.*check which is the day",
        ),
        (
            "02a-german-excel-cp1252",
            SchemaError,
            r"items.csv is not UTF-8 .line 2.*\"windows-1252\" would read .*Käse",
        ),
        (
            "02c-thousand-dots",
            SchemaError,
            r"amount can be .* two ways: '1.234' .*beside '12,50'.* 1234 if .* 1.234 if",
        ),
        ("06-epoch-millis", DataError, r'timestamp_unit = "ms": \d+ looks like milliseconds since 1970'),
        ("09-booleans", DataError, r"37 of 300 .*true_values, false_values.*'-' \(32 rows\), 'x' \(5 rows\)"),
    ],
)
def test_a_case_that_is_not_certain_says_what_to_declare(
    name: str, error: type, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(name, "", tmp_path)
    with pytest.raises(error, match=f"(?s){message}"):
        case.ingest()
    assert not list(case.home.rglob("current.json"))
    assert main(["--source", str(case.source), "--home", str(case.home)]) == 1
    assert capsys.readouterr().err.startswith(f"{error.__name__}: ")
