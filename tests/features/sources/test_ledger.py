"""The ledger as a source: every row once, whatever commits when; united with files; outcomes find their exposures."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from expectations.contracts.ledger import URL_VARIABLE
from expectations.contracts.source import read_source
from expectations.errors import SettingError, TransientError
from orchestration.local.processes import free_port
from tests.features.sources.test_tables import Shop
from tests.ledgers import database, event, exposure, ledger, statuses, url

pytestmark = pytest.mark.slow
__all__ = ["database", "ledger", "url"]

ITEMS = "item_id,item_type,text\nc1,campaign,Half price on tea\nc2,campaign,Coffee\n"
ALONE = """
name = "shop"
[tables.items]
location = "items.csv"
[tables.events]
ledger = true
[tables.exposures]
ledger = true
extra = { weather = "categorical" }
"""


@pytest.fixture
def shop(tmp_path, url, monkeypatch):
    monkeypatch.setenv(URL_VARIABLE, url)
    shop = Shop(tmp_path)
    shop.bring("items.csv", ITEMS)
    shop.declare(ALONE)
    return shop


def ids(shop, landed, table="events"):
    return [row[f"{table[:-1]}_id"] for row in shop.rows(landed[table])]


def test_rows_come_as_they_were_recorded_and_nothing_new_writes_nothing(shop, ledger):
    row = exposure(propensity=1e-07, position=2, weather="sun", query_text=" tea, please ", channel="mail")
    assert statuses(ledger.append("exposures", [row])) == ["appended"]
    ledger.append("events", [event(amount=12345678.9, quantity=3, place="shop 1")])
    landed = shop.ingest()
    (kept,) = shop.rows(landed["exposures"])
    for name in ("exposure_id", "user_id", "propensity", "position", "weather", "query_text", "channel"):
        assert kept[name] == row[name], name
    assert (kept["event_timestamp"].hour, kept["outcome"], kept["outcome_timestamp"]) == (10, 0, None)
    assert shop.rows(landed["events"])[0]["amount"] == 12345678.9
    assert not any(table.written for table in shop.ingest().values())
    ledger.append("events", [event("e2")])
    again = shop.ingest()
    assert [name for name, table in again.items() if table.written] == ["events"]


def test_items_of_the_ledger_are_the_shop_s_too(shop, ledger):
    shop.declare(ALONE.replace('location = "items.csv"', "ledger = true"))
    item = {
        "item_id": "c9",
        "item_type": "campaign",
        "text": "  NULL and void",
        "categories": ["food | drink", "tea"],
        "valid_from": "2026-11-01",
        "value": 1e22,
    }
    assert statuses(ledger.append("items", [item])) == ["appended"]
    ledger.append("exposures", [exposure(item_id="c9")])
    (kept,) = shop.rows(shop.ingest()["items"])
    for name in ("item_id", "item_type", "text", "categories", "value"):
        assert kept[name] == item[name], name
    assert kept["valid_from"].day == 1


def test_a_row_that_is_committed_late_with_an_earlier_number_is_not_skipped(shop, ledger, database):
    ledger.append("exposures", [exposure()])
    columns = "event_id, user_id, event_type, event_timestamp"
    insert = sa.text(f"INSERT INTO ledger.events ({columns}) VALUES (:id, 'u1', 'view', now()) RETURNING seq")  # noqa: S608
    with database.connect() as late, database.connect() as early:
        first = late.scalar(insert, {"id": "late"})
        second = early.scalar(insert, {"id": "early"})
        assert first < second
        early.commit()
        assert ids(shop, shop.ingest()) == ["early"]
        late.commit()
    assert sorted(ids(shop, shop.ingest())) == ["early", "late"]


def test_every_acknowledged_row_lands_once_while_writers_go_on(shop, ledger):
    ledger.append("exposures", [exposure()])
    ledger.append("events", [event("first")])

    def write(number):
        own = [event(f"w{number}-{row}") for row in range(20)]
        return [one.id for row in own for one in ledger.append("events", [row])]

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, number) for number in range(3)]
        while not all(writer.done() for writer in writers):
            seen = ids(shop, shop.ingest())
            assert len(seen) == len(set(seen))
    acknowledged = {one for writer in writers for one in writer.result()} | {"first"}
    found = ids(shop, shop.ingest())
    assert len(found) == len(set(found)) and set(found) == acknowledged


def outcome(outcome_id, exposure_id, value, time):
    return {
        "outcome_id": outcome_id,
        "exposure_id": exposure_id,
        "outcome": value,
        "outcome_timestamp": time,
        "outcome_value": 9.5,
    }


def test_an_outcome_finds_its_exposure_whichever_comes_first(shop, ledger):
    before = [
        outcome("o1", "x1", 1, "2026-11-29T11:30:00Z"),
        outcome("o2", "x1", 2, "2026-11-29T11:45:00Z"),
        outcome("o3", "x1", 2, "2026-11-29T11:40:00Z"),
        outcome("o4", "nothing", 1, "2026-11-29T11:40:00Z"),
    ]
    assert set(statuses(ledger.append("outcomes", before))) == {"appended"}
    ledger.append("exposures", [exposure("x2")])
    assert [row["outcome"] for row in shop.rows(shop.ingest()["exposures"])] == [0]
    ledger.append("exposures", [exposure("x1"), exposure("x3")])
    ledger.append("outcomes", [outcome("o5", "x3", 1, "2026-11-29T10:30:00Z")])
    found = {row["exposure_id"]: row for row in shop.rows(shop.ingest()["exposures"])}
    assert {name: row["outcome"] for name, row in found.items()} == {"x1": 2, "x2": 0, "x3": 1}
    assert found["x1"]["outcome_timestamp"].minute == 40 and found["x1"]["outcome_value"] == 9.5
    assert found["x2"]["outcome_timestamp"] is None


def test_files_and_ledger_are_united_without_doubles(shop, ledger):
    shop.declare(ALONE.replace("[tables.exposures]", '[tables.exposures]\nlocation = "exposures.csv"'))
    shop.bring(
        "exposures.csv",
        "exposure_id,user_id,item_id,scenario,event_timestamp,outcome,weather\n"
        "1,u1,c1,campaign,2026-11-01 08:00:00,,rain\n"
        "2,u2,c1,campaign,2026-11-02 08:00:00,0,rain\n"
        "3,u2,c1,campaign,someday,0,rain\n",
    )
    ledger.append("events", [event()])
    ledger.append("exposures", [exposure("1.0"), exposure(2, channel="app"), exposure(3), exposure(4)])
    ledger.append(
        "outcomes", [outcome("o", 1, 1, "2026-11-29T11:00:00Z"), outcome("p", 2, 1, "2026-11-29T11:00:00Z")]
    )
    landed = shop.ingest()
    found = {row["exposure_id"]: row for row in shop.rows(landed["exposures"])}
    assert sorted(found) == ["1", "2", "3", "4"] and landed["exposures"].num_rows == 4
    # what the file says stays; an outcome that it leaves open comes from the ledger
    assert (found["1"]["event_timestamp"].day, found["1"]["weather"], found["1"]["outcome"]) == (1, "rain", 1)
    assert (found["2"]["channel"], found["2"]["outcome"]) == (None, 0)
    # of a row that cannot be read, the ledger's stands
    assert found["3"]["event_timestamp"].day == 29 and len(shop.rejected("exposures")) == 1


def test_a_ledger_that_nobody_has_used_yet_has_no_rows(shop, database):
    shop.declare(ALONE.replace("[tables.exposures]", '[tables.exposures]\nlocation = "exposures.csv"'))
    shop.bring(
        "exposures.csv",
        "exposure_id,user_id,item_id,scenario,event_timestamp,outcome,weather\n1,u1,c1,campaign,2026-11-01,,rain\n",
    )
    landed = shop.ingest()
    assert list(landed) == ["items", "exposures"] and landed["exposures"].num_rows == 1


def test_what_is_missing_or_wrong_is_told(shop, monkeypatch):
    monkeypatch.delenv(URL_VARIABLE)
    with pytest.raises(SettingError, match="RECOMMENDER_LEDGER_URL is not set"):
        shop.ingest()
    monkeypatch.setenv(URL_VARIABLE, f"postgresql+psycopg2://ledger:hush@127.0.0.1:{free_port()}/ledger")
    with pytest.raises(TransientError, match="cannot be reached") as caught:
        shop.ingest()
    assert "hush" not in str(caught.value)
    shop.declare(ALONE.replace('location = "items.csv"', 'location = "items.csv"\nledger = "yes"'))
    with pytest.raises(SettingError, match="ledger is 'yes'; use true or false"):
        read_source(shop.source)
    shop.declare(ALONE + '[tables.users]\nlocation = "users.csv"\nledger = true\n')
    with pytest.raises(SettingError, match="true for items, events, exposures, feedback only"):
        read_source(shop.source)
    shop.declare(ALONE.replace("ledger = true\nextra", "extra"))
    with pytest.raises(SettingError, match="needs either location or query, or ledger = true"):
        read_source(shop.source)
