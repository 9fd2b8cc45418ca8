"""Numbers, words and CSV as people write them: what is read, what is refused, what is proposed."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from expectations.contracts.file_format import FileFormat
from expectations.contracts.schema import Column, ColumnType
from expectations.errors import DataError, SchemaError
from features.sources.tables.casting import Casting, cast_rows
from features.sources.tables.csv_files import read_csv
from features.sources.tables.number_text import NumberForm, bare_number, find_form, number_from_text
from tests.features.sources.conftest import column
from tests.features.sources.test_tables import DECLARED, EXPOSURES_CSV, Shop

SHOWN = datetime(2024, 4, 17, 17, 22)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def numbers(con: duckdb.DuckDBPyConnection, values: list[str], form: NumberForm | None = None) -> list[float]:
    column(con, values)
    form = form or find_form(con, "told", "t", "items", "value") or NumberForm()
    sql = f"SELECT {number_from_text('t', bare_number('t'), form)} FROM told"  # noqa: S608
    return [value for (value,) in con.execute(sql).fetchall()]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.234,50 €", "12,50 €", "9 €"], [1234.5, 12.5, 9]),
        (["EUR 1.234.567", "-EUR 3,5"], [1234567, -3.5]),
        (["1,234.5", "1,234,567", ".5", "5."], [1234.5, 1234567, 0.5, 5]),
        (["1'234.50", "1’000’000.00", "9"], [1234.5, 1000000, 9]),
        (["1 234,5", "1\u00a0234", "−3,25"], [1234.5, 1234, -3.25]),
        (["(12.00)", "12.00-", "($5)", "- 4"], [-12, -12, -5, -4]),
        (["12,-", "1.299,—", "5,- €"], [12, 1299, 5]),
        (["Rs. 500", "₹1,00,000.5"], [500, 100000.5]),
        (["12 %", "0,5%", "0"], [0.12, 0.005, 0]),
        (["$5", "-$1,250.75", "$0.10"], [5, -1250.75, 0.1]),
        (["1.234", "2.5", "-0.001"], [1.234, 2.5, -0.001]),
        (["1.234", "2.345"], [1.234, 2.345]),  # as programs write numbers
        (["1,25", "1,234", "0,125"], [1.25, 1.234, 0.125]),
        (["1,5E+3", "2,5"], [1500, 2.5]),
        (["12,34,567.5", "1,00,000.00"], [1234567.5, 100000]),
        (["1e-3", "1E5", "+4"], [0.001, 100000, 4]),
        (["¥1200", "1.5.2", "12,5,0", "inf", "5 pieces", "1,23.5"], [1200, None, None, None, None, None]),
    ],
)
def test_a_column_says_how_its_numbers_are_written(
    con: duckdb.DuckDBPyConnection, values: list[str], expected: list[float]
) -> None:
    assert numbers(con, values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["1.234", "12,50"],
            r"'1.234' \(1 rows\) beside '12,50' \(1 rows\); '1.234' is 1234 if .* and 1.234 if",
        ),
        (["1.234", "12,50", "1.234,50"], r"decimal = \",\" and thousands = \"\.\", or decimal = \"\.\""),
        (
            ["1,234", "12.50"],
            r"'1,234' .*beside '12.50'.* is 1234 if the comma separates thousands, and 1.234 if",
        ),
        (["1,234", "7"], "'1,234' is 1234 if"),
        (["12,5", "12.5"], "can be read in two ways"),
        (["12 %", "0.4"], "'12 %' .* stands beside '0.4'"),
        (["5 €", "5 $"], r"amounts in \$ and in EUR; bring them in one currency"),
    ],
)
def test_numbers_that_can_be_read_in_two_ways_are_refused(
    con: duckdb.DuckDBPyConnection, values: list[str], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        numbers(con, values)


def test_a_declared_separator_decides(con: duckdb.DuckDBPyConnection) -> None:
    values = ["1.234", "12,50", "1 234"]
    assert numbers(con, values, NumberForm(decimal=",")) == [1234, 12.5, 1234]
    assert numbers(con, values, NumberForm(decimal=",", thousands=".")) == [1234, 12.5, None]
    assert numbers(con, values, NumberForm(decimal=".")) == [1.234, None, 1234]


@pytest.mark.parametrize("kind", ["number", "boolean"])
def test_an_outcome_is_said_in_numbers_and_words(con: duckdb.DuckDBPyConnection, kind: ColumnType) -> None:
    words = "1 0 1.0 0.0 TRUE false Yes N oui non ja Falsch x - NULL n/a offen"
    said, meant = words.split(), [*[1, 0] * 7, None, None, None]
    column(con, [*said, "perhaps", "2.0"])
    form = FileFormat(true_values=("X",), false_values=("-",), null_values=("Offen",))
    outcome = Column("outcome", kind, "")
    casting = Casting(column=outcome, raw="t", raw_type="VARCHAR", form=form)
    sql = f"SELECT {casting.at('value')}, {casting.problem} FROM ({cast_rows('told', [casting], 'NULL')})"  # noqa: S608
    found = con.execute(sql).fetchall()
    assert [value for value, _ in found[:-2]] == meant
    assert [problem for _, problem in found[:-2]] == [None] * len(said)
    assert found[-2][1] == "outcome: 'perhaps' is not an outcome: yes or no, 0 or 1, or a grade"
    assert found[-1][0] == (2 if kind == "number" else None)


def texts(con: duckdb.DuckDBPyConnection, path: Path, **declared: object) -> list[tuple]:
    form = FileFormat(**declared)  # type: ignore[arg-type]
    con.execute("DROP TABLE IF EXISTS told")
    read_csv(con, "told", [path], table="items", form=form, wanted={"item_id", "text"}, scratch=path.parent)
    return con.execute("SELECT item_id, text FROM told").fetchall()


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        ("item_id;text\nc1;Käse, 5 €\n".encode("utf-8-sig"), {}),
        ("item_id;text\r\nc1;Käse, 5 €\r\n".encode("utf-16"), {}),
        ("item_id;text\nc1;Käse, 5 €\n".encode("utf-16-le"), {}),
        ("item_id\ttext\nc1\tKäse, 5 €\n".encode("utf-32"), {}),
        ("item_id;text\nc1;Käse, 5 €\n".encode("windows-1252"), {"encoding": "cp1252"}),
        ("sep=;\r\nitem_id;text\r\nc1;Käse, 5 €\r\n".encode(), {}),
        ("\ufeffsep=\t\nitem_id\ttext\nc1\tKäse, 5 €\n".encode("utf-16-le"), {}),
        ("\n\nitem_id|text\nc1|Käse, 5 €\n".encode(), {}),
        ('item_id,text\rc1,"Käse, 5 €"\r'.encode(), {}),
        ('item_id,text,,\nc1,"Käse, 5 €",,\n'.encode(), {}),
        ('item_id,text\nc1,"Käse, 5 €",\n'.encode(), {}),
        ("item_id~text~a;b\nc1~Käse, 5 €~;\n".encode(), {"delimiter": "~"}),
        ("item_id,text\nc1,'Käse, 5 €'\n".encode(), {"quote": "'"}),
        ('item_id,a|b,text\nc1,x,"Käse, 5 €"\n'.encode(), {}),
        ('note,Note,item_id,text\n1,2,c1,"Käse, 5 €"\n'.encode(), {}),
    ],
)
def test_csv_is_read_as_it_is_exported(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, content: bytes, declared: dict[str, object]
) -> None:
    path = tmp_path / "data [2024]" / "items.csv"
    path.parent.mkdir()
    path.write_bytes(content)
    assert texts(con, path, **declared) == [("c1", "Käse, 5 €")]


def test_escapes_and_lines_within_quotes(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item_id,text\nc1,"5\\" screen,\nnew"\n')
    assert texts(con, path, escape="\\") == [("c1", '5" screen,\nnew')]
    path.write_text('item_id,text\nc1,5" screen\n')
    assert texts(con, path, quote="") == [("c1", '5" screen')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "item_id,text\nc1,Käse für 5 €\n".encode("cp1252"),
            r'not UTF-8 \(line 2\).*"windows-1252" would read .*Käse',
        ),
        ("item_id,text\nc1,手机\n".encode("gb18030"), r'"gb18030" would read .*手机'),
        (b'item_id,text\nc1,"open\nc2,x\nc3,y\n', r"line 2 opens a quote that nothing closes"),
        (b"item_id,a;text\nc1,x;y\n", r"may be separated by ',' or by ';'; set delimiter in"),
    ],
)
def test_csv_that_is_not_certain_is_refused(shop: Shop, content: bytes, message: str) -> None:
    shop.bring("items.csv", content)
    shop.declare(DECLARED.replace('"items.csv"', '"items.csv"\nconstants = { item_type = "ad" }'))
    with pytest.raises(SchemaError, match=message):
        shop.ingest()


RULED = '[tables.items]\n{items}\nextra = {{ cost = "numeric", kind = "categorical" }}\n[tables.exposures]\n{shown}\n'


@pytest.mark.parametrize("way", ["csv", "parquet", "sql"])
def test_identifiers_outcomes_and_numbers_follow_one_rule(
    shop: Shop, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = pa.table(
        {"item_id": [200, 201], "item_type": ["ad", "ad"], "cost": [1.5, None], "kind": [True, None]}
    )
    shown = pa.table(
        {
            "exposure_id": [1.0, 2.0, 3.0],
            "user_id": ["7.0", "8", " 9 "],
            "item_id": [200.0, 201.0, 200.0],
            "scenario": ["ad"] * 3,
            "event_timestamp": ["2024-04-17 18:22:00 +0100"] * 3,
            "outcome": [1.0, 0.0, None],
            "device": ["NULL", "NaN", r"\N"],
        }
    )
    tables = {"items": items, "exposures": shown}
    for name, table in tables.items():
        if way == "csv":
            table.to_pandas().to_csv(shop.folder / f"{name}.csv", index=False)
        elif way == "parquet":
            pq.write_table(table, shop.folder / f"{name}.parquet")
        else:
            engine = sqlalchemy.create_engine(f"sqlite:///{shop.folder / 'shop.db'}")
            table.to_pandas().to_sql(name, engine, index=False)
            engine.dispose()
    where = {n: f'query = "SELECT * FROM {n}"' if way == "sql" else f'location = "{n}.{way}"' for n in tables}  # noqa: S608
    database = '[database]\nurl_env = "TEST_SHOP_URL"\n' if way == "sql" else ""
    monkeypatch.setenv("TEST_SHOP_URL", f"sqlite:///{shop.folder / 'shop.db'}")
    shop.declare('name = "shop"\n' + RULED.format(items=where["items"], shown=where["exposures"]) + database)
    landed = shop.ingest(tolerance=0.0)
    assert [(row["item_id"], row["cost"]) for row in shop.rows(landed["items"])] == [
        ("200", 1.5),
        ("201", None),
    ]
    told = ["exposure_id", "user_id", "item_id", "event_timestamp", "outcome", "device"]
    assert [tuple(row[name] for name in told) for row in shop.rows(landed["exposures"])] == [
        ("1", "7", "200", SHOWN, True, None),
        ("2", "8", "201", SHOWN, False, None),
        ("3", "9", "200", SHOWN, None, None),
    ]


def test_every_arrow_type_is_read(shop: Shop) -> None:
    sizes = [pa.array([2], kind) for kind in (pa.int8(), pa.uint64(), pa.float16(), pa.float32())]
    sizes += [pa.array([Decimal(2)], kind) for kind in (pa.decimal128(12, 2), pa.decimal256(40, 2))]
    sizes += [pa.array(["2"], pa.large_string()), pa.array(["2,0"]).dictionary_encode(), pa.array([b"2"])]
    columns = {f"size_{number}": size for number, size in enumerate(sizes)} | {"sold": pa.array([True])}
    extras = ", ".join(f'{name} = "numeric"' for name in columns)
    columns |= {
        "item_id": pa.array([Decimal(200)], pa.decimal128(38, 10)),
        "item_type": pa.array(["ad"]).dictionary_encode(),
        "categories": pa.array([["a", "b"]], pa.large_list(pa.large_string())),
        "valid_from": pa.array([SHOWN.date()], pa.date32()),
        "valid_until": pa.array([SHOWN.date()], pa.date64()),
    }
    pq.write_table(pa.table(columns), shop.folder / "items.parquet")
    for unit in ("s", "ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Berlin", "+02:00"):
            kind = pa.timestamp(unit, zone)
            table = {
                "event_timestamp": pa.array([SHOWN], pa.timestamp("us")).cast(pa.timestamp(unit)).cast(kind)
            }
            row = {"exposure_id": f"{unit}{zone}", "user_id": "u", "item_id": "200", "scenario": "ad"}
            (shop.folder / "exposures").mkdir(exist_ok=True)
            place = shop.folder / "exposures" / f"{len(list((shop.folder / 'exposures').iterdir()))}.parquet"
            pq.write_table(pa.table(table | {name: [value] for name, value in row.items()}), place)
    declared = DECLARED.replace('"items.csv"', f'"items.parquet"\nextra = {{ {extras} }}')
    shop.declare(declared.replace("exposures.csv", "exposures"))
    landed = shop.ingest(tolerance=0.0)
    (item,) = shop.rows(landed["items"])
    assert [item[f"size_{number}"] for number in range(len(sizes))] == [2] * len(sizes)
    assert (item["item_id"], item["sold"], item["item_type"], item["categories"]) == (
        "200",
        1,
        "ad",
        ["a", "b"],
    )
    assert item["valid_from"] == item["valid_until"] == datetime(2024, 4, 17)
    assert [row["event_timestamp"] for row in shop.rows(landed["exposures"])] == [SHOWN] * 16


def test_more_rejected_rows_than_tolerated_fail_the_table(shop: Shop) -> None:
    shop.ingest()
    rows = [f"e{n},u1,c1,campaign,{'yesterday' if n < 2 else '2024-01-01'},perhaps\n" for n in range(100)]
    shop.bring(
        "exposures.csv",
        EXPOSURES_CSV.partition("\n")[0]
        + "\n"
        + "".join(rows[:2] + [r.replace("perhaps", "1") for r in rows[2:]]),
    )
    with pytest.raises(DataError) as caught:
        shop.ingest(tolerance=0.01)
    told = str(caught.value)
    assert "exposures: 2 of 100 rows are rejected (2.0%, more than the tolerated 1%); nothing landed" in told
    assert "event_timestamp is not a timestamp in 2 rows, such as 'yesterday'." in told
    assert "'perhaps' (2 rows)" in told
    assert shop.ingest(tolerance=0.02)["exposures"].num_rejected == 2


def test_what_a_frame_or_a_spreadsheet_leaves_behind(shop: Shop) -> None:
    shop.bring("items.csv", "Item ID;item_type;categories\r\n7;ad;['food', 'tea']\n8;ad;\n;;\n ;;\r\n")
    with pytest.raises(SchemaError, match=r'columns = \{ item_id = "Item ID" \}'):
        shop.ingest()
    shop.declare(DECLARED.replace('"items.csv"', '"items.csv"\ncolumns = { item_id = "Item ID" }'))
    shop.bring("exposures.csv", EXPOSURES_CSV.replace("c1", "1.2345678901234568e+18", 1))
    landed = shop.ingest()
    assert [row["categories"] for row in shop.rows(landed["items"])] == [["food", "tea"], None]
    assert landed["items"].num_rejected == 0
    (rejected,) = shop.rejected("exposures")
    assert rejected["reason"] == (
        "item_id: '1.2345678901234568e+18' is not an identifier, but what a spreadsheet or a data frame rounded"
    )


def test_everything_that_is_wrong_is_told_at_once(shop: Shop) -> None:
    shop.bring("items.csv", "item_id;item_type;value\nc1;ad;1.234\nc2;ad;12,50\n")
    shop.bring("exposures.csv", EXPOSURES_CSV.replace("c1", "1.23E+12"))
    with pytest.raises(
        SchemaError, match=r"(?s)items: value can be read in two ways.*exposures: all 2 rows are rejected"
    ):
        shop.ingest()


def test_brackets_of_folders_are_characters(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "data [2024]*" / "a?"
    moved = Shop.__new__(Shop)
    folder.mkdir(parents=True)
    moved.__init__(folder)  # type: ignore[misc]
    moved.bring("exposures/part[1].csv", EXPOSURES_CSV)
    moved.bring("exposures/part[2].csv", EXPOSURES_CSV.replace("\ne", "\nf"))
    for location, count in (
        ("exposures", 4),
        ("exposures/*.csv", 4),
        ("exposures/part[1].csv", 2),
        ("**/*2?.csv", 2),
    ):
        moved.declare(DECLARED.replace("exposures.csv", location))
        assert moved.ingest()["exposures"].num_rows == count
