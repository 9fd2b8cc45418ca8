"""The Complete Journey lands whole, and its texts read as language."""

from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from expectations.contracts.source import read_source
from expectations.errors import SettingError
from features.sources import COMPLETE_JOURNEY
from features.sources.complete_journey.items import coupon_text
from features.sources.complete_journey.product_names import named_type, readable, readable_size, vocabulary
from features.sources.landing import LandedTable, ingest


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ICE - CRUSHED/CUBED", "ice crushed/cubed"),
        ("FRZN MEAT/MEAT DINNERS", "frozen meat/meat dinners"),
        ("SALD DRSNG/SNDWCH SPRD", "salad dressing/sandwich spread"),
        ("MEAT: SAUS DRY BULK", "meat sausage dry bulk"),
        ("CANDY BARS (SINGLES)(INCLUDING", "candy bars (singles)"),
        ("WOMEN S GENERAL-MAGAZINE", "women's general-magazine"),
        ("FRZN PASTRY&COOKIES", "frozen pastry and cookies"),
    ],
)
def test_readable_names(name: str, words: str) -> None:
    assert readable(name) == words


def test_a_word_that_was_cut_off_is_left_out() -> None:
    known = vocabulary(["SANDWICHES", "NATURAL", "FRZN BREAKFAST ENTREES"])
    assert readable("FRZN BREAKFAST ENTREES/SANDWIC", known) == "frozen breakfast entrees"
    assert readable("FRZN BREAKFAST ENTREES NATURAL", known) == "frozen breakfast entrees natural"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("22 LB", "22 lb"),
        ("R    16 OZ", "16 oz"),
        ("6 PK/12 OZ", "6 pack/12 oz"),
        (".58 OZ", ".58 oz"),
        ("SCAN KPC", None),
    ],
)
def test_readable_sizes(size: str, words: str | None) -> None:
    assert readable_size(size) == words


def test_vague_types_get_their_category() -> None:
    assert named_type("premium", "ice cream") == "premium ice cream"
    assert named_type("yogurt", "dairy") == "yogurt"


def test_a_coupon_of_products_that_no_catalogue_knows_still_has_a_text() -> None:
    found = {"start_date": datetime(2017, 3, 3), "end_date": datetime(2017, 4, 9), "campaign_type": "Type B"}
    nothing = dict.fromkeys(("types", "categories", "departments", "brands"))
    text = coupon_text({**found, **nothing, "num_products": 1})
    assert text == "Coupon for 1 product. Type B campaign from 3 March 2017 to 9 April 2017."


def test_an_extra_that_the_data_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "source.toml"
    path.write_text(COMPLETE_JOURNEY.read_text().replace('age = "categorical"', 'shoe_size = "numeric"'))
    with pytest.raises(SettingError, match=r"no column 'shoe_size' for extra; it has age, "):
        ingest(
            read_source(path), path, tables_dir=tmp_path / "tables", quarantine_dir=tmp_path / "quarantine"
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def land(home: Path) -> dict[str, LandedTable]:
    source = read_source(COMPLETE_JOURNEY)
    return ingest(source, COMPLETE_JOURNEY, tables_dir=home / "tables", quarantine_dir=home / "quarantine")


@pytest.fixture(scope="module")
def landed(home: Path) -> dict[str, LandedTable]:
    return land(home)


def ask(table: LandedTable, sql: str) -> list[tuple]:
    with duckdb.connect() as con:
        files = f"read_parquet('{table.folder}/**/*.parquet', hive_partitioning = true)"
        return con.execute(sql.replace("landed", files)).fetchall()


@pytest.mark.slow
def test_counts(landed: dict[str, LandedTable]) -> None:
    assert {name: table.num_rows for name, table in landed.items()} == {
        "users": 2469,
        "items": 93548,
        "events": 1469307,
        "exposures": 800199,
        "relations": 111332,
    }
    assert not any(table.num_rejected for table in landed.values())
    assert ask(
        landed["exposures"], "SELECT count(*) FILTER (outcome), count(outcome_timestamp) FROM landed"
    ) == [(2075, 2075)]
    split = "SELECT count(*), count(*) FILTER (outcome = 1) FROM landed WHERE event_timestamp >= DATE '2017-09-01'"
    assert ask(landed["exposures"], split) == [(266353, 873)]
    assert ask(
        landed["items"], "SELECT item_type, count(*), count(text) FROM landed GROUP BY ALL ORDER BY ALL"
    ) == [
        ("campaign", 1197, 1197),
        ("product", 92351, 92331),
    ]


@pytest.mark.slow
def test_every_event_exposure_and_relation_finds_its_items(landed: dict[str, LandedTable]) -> None:
    items = f"(SELECT item_id FROM read_parquet('{landed['items'].folder}/*.parquet'))"  # noqa: S608
    for table, column in (
        ("events", "item_id"),
        ("exposures", "item_id"),
        ("relations", "source_id"),
        ("relations", "target_id"),
    ):
        assert ask(landed[table], f"SELECT count(*) FROM landed WHERE {column} NOT IN {items}") == [(0,)]  # noqa: S608


@pytest.mark.slow
def test_keys_are_unique(landed: dict[str, LandedTable]) -> None:
    for name, contract in read_source(COMPLETE_JOURNEY).contracts().items():
        if name in landed:
            keys = f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(contract.key)} FROM landed)"  # noqa: S608
            assert ask(landed[name], keys) == [(landed[name].num_rows,)]


@pytest.mark.slow
def test_the_text_of_a_coupon_and_of_a_product(landed: dict[str, LandedTable]) -> None:
    coupon = (
        "SELECT text, categories, campaign_type, campaign_days, num_products, valid_until "
        "FROM landed WHERE item_id = '9:52100000033'"
    )
    ((text, categories, *facts),) = ask(landed["items"], coupon)
    assert text == (
        "Coupon for 83 products: shredded cheese, natural cheese exact weight, string cheese. "
        "Cheese, grocery department, national brands. Type B campaign from 31 May 2017 to 2 July 2017."
    )
    assert categories == ["grocery", "cheese", "shredded cheese"]
    assert facts[:3] == ["Type B", 33.0, 83.0]
    assert str(facts[3]) == "2017-07-03 00:00:00"
    assert ask(landed["items"], "SELECT text FROM landed WHERE item_id = '25671'") == [
        ("ice crushed/cubed, 22 lb, frozen ice, grocery, national brand",)
    ]


@pytest.mark.slow
def test_again_changes_nothing(home: Path, landed: dict[str, LandedTable]) -> None:
    again = land(home)
    assert [table.version for table in again.values()] == [table.version for table in landed.values()]
    assert not any(table.written for table in again.values())
