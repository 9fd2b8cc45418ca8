"""Any shop's Parquet, CSV or SQL: what lands, what is quarantined, what is refused."""

import json
import sqlite3
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from expectations.contracts.schema import QUARANTINE_SCHEMA
from expectations.contracts.source import read_source
from expectations.errors import DataError, SchemaError, SettingError, TransientError
from expectations.storage.masking import OPEN, Mask
from features.sources.landing import LandedTable, ingest

ITEMS_CSV = "item_id,item_type,text\nc1,campaign,Half price on tea\nc2,campaign,\n"
EXPOSURES_CSV = (
    "exposure_id,user_id,item_id,scenario,event_timestamp,outcome\n"
    "e2,u1,c1,campaign,2024-02-01 08:00:00,true\n"
    "e1,u2,c1,campaign,2024-01-31T23:30:00-02:00,0\n"
)
DECLARED = """
name = "shop"
[tables.items]
location = "items.csv"
[tables.exposures]
location = "exposures.csv"
"""


class Shop:
    """A shop's folder: its files, its source.toml, and where its tables land."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, folder / "source.toml"
        self.tables_dir, self.quarantine_dir = (
            folder / "home" / n / "shop" for n in ("tables", "quarantine")
        )
        self.declare(DECLARED)
        self.bring("items.csv", ITEMS_CSV)
        self.bring("exposures.csv", EXPOSURES_CSV)

    def bring(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def declare(self, text: str) -> None:
        self.bring("source.toml", text)

    def ingest(self, tolerance: float = 1.0, mask: Mask = OPEN) -> dict[str, LandedTable]:
        """Land the tables; of a few rows, any number may be rejected where a test says nothing else."""
        declared, folders = read_source(self.source), (self.tables_dir, self.quarantine_dir)
        return ingest(
            declared,
            self.source,
            tables_dir=folders[0],
            quarantine_dir=folders[1],
            tolerance=tolerance,
            mask=mask,
        )

    def rows(self, landed: LandedTable) -> list[dict]:
        contract = read_source(self.source).contracts()[landed.table]
        files = sorted(landed.folder.rglob("*.parquet"))
        assert all(pq.read_schema(path).equals(contract.schema) for path in files)
        return ds.dataset(files).to_table().to_pylist()

    def rejected(self, table: str) -> list[dict]:
        path = self.quarantine_dir / table / "ingestion.parquet"
        found = pq.ParquetFile(path).read()
        assert found.schema.equals(QUARANTINE_SCHEMA)
        return found.to_pylist()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_csv_lands_in_month_folders_in_utc(shop: Shop) -> None:
    landed = shop.ingest()
    assert list(landed) == ["items", "exposures"]
    exposures = shop.rows(landed["exposures"])
    assert [path.name for path in sorted(landed["exposures"].folder.iterdir())] == ["month=2024-02"]
    assert [(row["exposure_id"], row["event_timestamp"], row["outcome"]) for row in exposures] == [
        ("e1", datetime(2024, 2, 1, 1, 30), False),
        ("e2", datetime(2024, 2, 1, 8), True),
    ]
    assert exposures[0]["device"] is None
    assert [row["text"] for row in shop.rows(landed["items"])] == ["Half price on tea", None]
    assert not shop.quarantine_dir.exists()


def test_values_of_the_wrong_type_are_quarantined_with_the_row(shop: Shop) -> None:
    shop.bring(
        "exposures.csv",
        "exposure_id,user_id,item_id,scenario,event_timestamp,position,propensity,outcome\n"
        "e1,u1,c1,campaign,2024-01-01,1,0.5,yes\n"
        "e2,u1,c1,campaign,yesterday,1,0.5,true\n"
        "e3,u1,c1,campaign,2024-01-01,1.5,0.5,true\n"
        "e4,u1,c1,campaign,2024-01-01,3.0,inf,true\n"
        "e5,u1,c1,campaign,2024-01-01,1,0.5,perhaps\n"
        "e6,,c1,campaign,2024-01-01,1,0.5,true\n"
        "e7,u1,c1,campaign,infinity,x,0.5,true\n",
    )
    landed = shop.ingest()["exposures"]
    assert (landed.num_rows, landed.num_rejected) == (2, 5)
    assert [row["reason"] for row in shop.rejected("exposures")] == [
        "event_timestamp: 'yesterday' is not a timestamp",
        "position: '1.5' is not a whole number",
        "propensity: 'inf' is not a number",
        "outcome: 'perhaps' is not an outcome: yes or no, 0 or 1, or a grade",
        "event_timestamp: 'infinity' is not a timestamp; position: 'x' is not a whole number",
    ]
    first = shop.rejected("exposures")[0]
    assert (first["table"], first["stage"]) == ("exposures", "ingestion")
    assert json.loads(first["row"])["event_timestamp"] == "yesterday"


def test_broken_csv_lines_are_quarantined_with_their_number(shop: Shop) -> None:
    shop.bring(
        "items.csv", 'item_id,item_type,text\nc1,campaign,"tea, "\na,b,c,d\nc2,campaign\nc3,ad,"two\nlines"\n'
    )
    landed = shop.ingest()["items"]
    assert [row["text"] for row in shop.rows(landed)] == ["tea, ", "two\nlines"]
    reasons = [row["reason"] for row in shop.rejected("items")]
    assert reasons == [
        "line 3: Expected Number of Columns: 3 Found: 4",
        "line 4: Expected Number of Columns: 3 Found: 2",
    ]
    assert json.loads(shop.rejected("items")[0]["row"]) == {"line": "a,b,c,d"}


def test_the_quarantine_follows_the_newest_version(shop: Shop) -> None:
    shop.bring("items.csv", ITEMS_CSV + ",campaign,no id\n")
    assert shop.ingest()["items"].num_rejected == 1
    assert shop.ingest()["items"].num_rejected == 1
    assert len(shop.rejected("items")) == 1
    shop.bring("items.csv", ITEMS_CSV)
    assert shop.ingest()["items"].num_rejected == 0
    assert not (shop.quarantine_dir / "items" / "ingestion.parquet").exists()


def test_byte_order_mark_semicolons_and_categories(shop: Shop) -> None:
    text = (
        "item_id;item_type;categories\nc1;ad;drinks|tea | green\n"
        'c2;ad;"[""a"", ""b|c""]"\nc3;ad;[oops\nc4;ad;\n'
    )
    shop.bring("items.csv", b"\xef\xbb\xbf" + text.encode())
    landed = shop.ingest()["items"]
    assert [row["categories"] for row in shop.rows(landed)] == [
        ["drinks", "tea", "green"],
        ["a", "b|c"],
        None,
    ]
    assert [row["reason"] for row in shop.rejected("items")] == ["categories: '[oops' is not a list of texts"]


def test_mapping_constants_and_extras(shop: Shop) -> None:
    shop.declare(
        DECLARED.replace(
            'location = "items.csv"',
            'location = "coupons/*.parquet"\ncolumns = { item_id = "code", text = "words" }\n'
            'constants = { item_type = "campaign", valid_from = 2024-01-01, categories = ["a", "b"] }\n'
            'extra = { discount = "numeric", kind = "categorical" }',
        )
    )
    (shop.folder / "coupons").mkdir()
    codes = pa.table(
        {
            "code": [1.0, 2, None],
            "words": ["x", "", "z"],
            "discount": [0.5, float("nan"), 1],
            "kind": [1, 2, 3],
        }
    )
    pq.write_table(codes, shop.folder / "coupons" / "a.parquet")
    landed = shop.ingest()["items"]
    rows = shop.rows(landed)
    assert [(row["item_id"], row["text"], row["discount"], row["kind"]) for row in rows] == [
        ("1", "x", 0.5, "1"),
        ("2", None, None, "2"),
    ]
    assert rows[0]["valid_from"] == datetime(2024, 1, 1)
    assert rows[0]["categories"] == ["a", "b"]
    assert landed.num_rejected == 1


def test_parquet_types_are_kept_and_zones_converted(shop: Shop) -> None:
    shop.declare(DECLARED.replace("exposures.csv", "exposures"))
    (shop.folder / "exposures").mkdir()
    timestamp = datetime(2024, 3, 1)
    for name, zone in (("a", None), ("b", "Asia/Shanghai")):
        table = pa.table(
            {
                "exposure_id": [name],
                "user_id": pa.array([b"u1"], pa.binary()),
                "item_id": ["c1"],
                "scenario": ["ad"],
                "event_timestamp": pa.array([timestamp], pa.timestamp("ns")).cast(pa.timestamp("ns", zone)),
                "outcome": [True],
            }
        )
        pq.write_table(table, shop.folder / "exposures" / f"{name}.parquet")
    rows = shop.rows(shop.ingest()["exposures"])
    assert [(row["user_id"], row["event_timestamp"], row["outcome"]) for row in rows] == [
        ("u1", timestamp, True)
    ] * 2


def test_numbers_are_no_timestamps_and_a_wholly_rejected_table_is_refused(shop: Shop) -> None:
    shop.ingest()
    shop.bring(
        "exposures.csv",
        EXPOSURES_CSV.replace("2024-02-01 08:00:00", "17").replace("2024-01-31T23:30:00-02:00", "18"),
    )
    with pytest.raises(
        DataError, match=r"(?s)all 2 rows are rejected.*event_timestamp is not a timestamp.*'17'"
    ):
        shop.ingest()
    assert (shop.tables_dir / "exposures" / "current.json").exists()


def test_a_refusal_masks_what_is_declared_of_a_shopper_and_nothing_else(shop: Shop) -> None:
    shop.declare(DECLARED + '[tables.users]\nlocation = "users.csv"\nextra = { income = "numeric" }\n')
    shop.bring("users.csv", "user_id,income\nu1,plenty\nu2,plenty\n")
    shop.bring("exposures.csv", EXPOSURES_CSV.replace("2024-02-01 08:00:00", "17"))
    mask = Mask(key="secret")
    with pytest.raises(DataError) as told:
        shop.ingest(tolerance=0.0, mask=mask)
    assert "plenty" not in str(told.value) and mask("income", "plenty") in str(told.value)
    assert "python -m features.sources" in str(told.value) and "'17'" in str(told.value)
    with pytest.raises(DataError, match=r"null_values = \[\"plenty\"\]"):
        shop.ingest(tolerance=0.0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "items.csv",
            "code,item_type\nc1,ad\n",
            r"no column 'item_id', which is required.*found code, item_type",
        ),
        ("items.csv", "", r"items.csv is empty \(0 bytes\)"),
        ("items.csv", "item_id,item_type\n", "items has no rows, but is required"),
        ("items.csv", "item_id,item_type,item_id\na,ad,b\n", "names the column 'item_id' twice"),
        ("items.csv", "item_id,item_type,text\nc1,ad,café\n".encode("latin-1"), "is not UTF-8"),
        ("items.parquet", b"PAR1 this is no Parquet file PAR1", "items.parquet cannot be read"),
        ("items.xlsx", b"PK", "must hold only .parquet or only .csv"),
        ("elsewhere.csv", ITEMS_CSV, "items.json has no Parquet or CSV file"),
    ],
)
def test_unfit_files_are_refused(shop: Shop, name: str, content: str | bytes, message: str) -> None:
    shop.bring(name, content)
    shop.declare(DECLARED.replace("items.csv", "items.json" if name == "elsewhere.csv" else name))
    with pytest.raises(SchemaError, match=message):
        shop.ingest()
    assert not list(shop.tables_dir.glob("*/current.json"))


def test_a_parquet_file_with_damaged_pages_is_refused(shop: Shop) -> None:
    shop.declare(DECLARED.replace("items.csv", "items.parquet"))
    path = shop.folder / "items.parquet"
    pq.write_table(pa.table({"item_id": [f"c{i}" for i in range(9999)], "item_type": ["ad"] * 9999}), path)
    content = bytearray(path.read_bytes())
    content[40:4000] = b"\xff" * 3960
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=r"items.parquet cannot be read"):
        shop.ingest()


@pytest.mark.parametrize(
    ("declared", "error", "message"),
    [
        ('columns = { value = "worth" }', SchemaError, "no column 'worth', from which columns takes value"),
        ('extra = { discount = "numeric" }', SchemaError, "no column 'discount', which extra declares"),
        ('constants = { value = "much" }', SettingError, "value: 'much' is not a number"),
    ],
)
def test_what_is_declared_must_be_there_and_fit(shop: Shop, declared: str, error: type, message: str) -> None:
    shop.declare(DECLARED.replace('"items.csv"', f'"items.csv"\n{declared}'))
    with pytest.raises(error, match=message):
        shop.ingest()


DATABASE = """
name = "shop"
[database]
url_env = "TEST_SHOP_URL"
[tables.items]
query = "SELECT * FROM items"
[tables.exposures]
query = "SELECT * FROM exposures"
"""


@pytest.fixture
def database(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    path = shop.folder / "shop.db"
    con = sqlite3.connect(path)
    con.execute("CREATE TABLE items (item_id INTEGER, item_type TEXT, value REAL, categories TEXT)")
    con.execute("INSERT INTO items VALUES (1, 'ad', 2.5, 'a|b'), (2, 'ad', 3, NULL)")
    con.execute("CREATE TABLE exposures (exposure_id, user_id, item_id, scenario, event_timestamp, outcome)")
    con.execute(
        "INSERT INTO exposures VALUES (7, 'u', 1, 'ad', '2024-05-01 10:00:00', 1), (8, 'u', 1, 'ad', 'x', 0)"
    )
    con.commit()
    shop.declare(DATABASE)
    monkeypatch.setenv("TEST_SHOP_URL", f"sqlite:///{path}")
    return con


def test_sql_lands_by_content_not_by_order(shop: Shop, database: sqlite3.Connection) -> None:
    first = shop.ingest()
    assert [(row["item_id"], row["value"], row["categories"]) for row in shop.rows(first["items"])] == [
        ("1", 2.5, ["a", "b"]),
        ("2", 3.0, None),
    ]
    (exposure,) = shop.rows(first["exposures"])
    assert (exposure["exposure_id"], exposure["outcome"]) == ("7", True)
    assert shop.rejected("exposures")[0]["reason"] == "event_timestamp: 'x' is not a timestamp"
    database.execute("UPDATE items SET rowid = 9 WHERE item_id = 1")
    database.commit()
    assert not shop.ingest()["items"].written
    database.execute("UPDATE items SET value = 4 WHERE item_id = 1")
    database.commit()
    second = shop.ingest()
    assert (second["items"].written, second["exposures"].written) == (True, False)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("", SettingError, "TEST_SHOP_URL is not set"),
        ("hunter2", SettingError, "does not hold an SQLAlchemy URL"),
        ("nosuch://me:hunter2@host/shop", SettingError, "no driver for nosuch"),
        ("sqlite:///nowhere/none.db", SchemaError, "does not exist"),
        ("postgresql://me:hunter2@127.0.0.1:9/shop?sslpassword=hunter2", TransientError, "cannot be reached"),
        ("sqlite:///{folder}/empty.db", SchemaError, "no such table: items"),
    ],
)
def test_a_database_that_fails_says_so_without_the_password(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, url: str, error: type, message: str
) -> None:
    shop.declare(DATABASE)
    shop.bring("empty.db", b"")
    monkeypatch.setenv("TEST_SHOP_URL", url.format(folder=shop.folder))
    with pytest.raises(error, match=message) as caught:
        shop.ingest()
    assert "hunter2" not in str(caught.value)
