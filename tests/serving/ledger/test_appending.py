"""Appending once and for good, in a real PostgreSQL: with other writers beside, and with writers that are killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from expectations.errors import RequestError, TransientError
from orchestration.local.instance import PROJECT
from orchestration.local.processes import free_port
from serving.ledger.ledger import Counts, open_ledger
from serving.ledger.tables import TABLES
from tests.ledgers import MASK, NOW, contracts, event, exposure, statuses, stored

pytestmark = pytest.mark.slow


def test_a_row_is_kept_in_the_types_of_its_contract(ledger, database):
    row = exposure(
        event_timestamp="2026-11-29T12:00:00+02:00",
        position=3,
        propensity=0.1,
        weather="sun",
        item_id="200.0",
    )
    assert statuses(ledger.append("exposures", [row])) == ["appended"]
    (kept,) = stored(database, "exposures")
    assert kept["event_timestamp"] == datetime(2026, 11, 29, 10) and kept["item_id"] == "200"
    assert (kept["position"], kept["propensity"], kept["extra"]) == (3, 0.1, {"weather": "sun"})
    assert abs(kept["recorded_at"].timestamp() - time.time()) < 60


def test_every_table_takes_its_rows(ledger):
    rows = {
        "events": event(),
        "exposures": exposure(),
        "outcomes": {
            "outcome_id": "o1",
            "exposure_id": "x9",
            "outcome": 1,
            "outcome_timestamp": "2026-11-29",
        },
        "feedback": {"feedback_id": "f1", "user_id": "u1", "text": "so so", "event_timestamp": "2026-11-28"},
        "decisions": {
            "decision_id": "d1",
            "scenario": "campaign",
            "event_timestamp": "2026-11-28",
            "candidates": ["c1", "c2"],
            "propensities": {"c1": 0.25, "c2": 0.75},
        },
        "items": {"item_id": "c1", "item_type": "campaign", "categories": ["food", "tea"]},
    }
    assert rows.keys() == TABLES.keys()
    for table, row in rows.items():
        assert statuses(ledger.append(table, [row])) == ["appended"], table
        assert statuses(ledger.append(table, [row])) == ["unchanged"], table
    assert {table: counts.rows for table, counts in ledger.counts().items()} == dict.fromkeys(rows, 1)
    with pytest.raises(RequestError, match="no table 'carts'"):
        ledger.append("carts", [{}])


def test_the_same_id_with_other_content_is_refused_counted_and_kept_apart(ledger, database):
    ledger.append("events", [event(quantity=1, amount=2.5)])
    assert statuses(ledger.append("events", [event(quantity="1", amount=2.50)])) == ["unchanged"]
    other = event(quantity=2, channel="web")
    for _ in range(2):
        (refused,) = ledger.append("events", [other])
        assert refused.status == "conflict"
        assert refused.reason == (
            "event_id: 'e1' was recorded in events before with another amount, channel, quantity; "
            "what is recorded stays: send a new event_id where it is another row"
        )
    (kept,) = stored(database, "events")
    assert kept["quantity"] == 1
    (apart,) = stored(database, "quarantine")
    assert (apart["status"], apart["times"], apart["user_id"]) == ("conflict", 2, "u1")
    assert ledger.counts()["events"] == Counts(rows=1, conflicts=2, invalid=0)


def test_a_batch_tells_of_each_row_and_keeps_the_sound_ones(ledger, database):
    ledger.append("events", [event("old")])
    batch = [
        event("new"),
        event("new"),
        event("new", quantity=3),
        event("old"),
        event("old", quantity=3),
        event("bad", event_type="hug"),
        event("next"),
    ]
    told = ledger.append("events", batch)
    expected = ["appended", "unchanged", "conflict", "unchanged", "conflict", "invalid", "appended"]
    assert statuses(told) == expected and [one.id for one in told] == [row["event_id"] for row in batch]
    assert {row["event_id"] for row in stored(database, "events")} == {"old", "new", "next"}
    assert ledger.counts()["events"] == Counts(rows=3, conflicts=2, invalid=1)
    assert statuses(ledger.append("events", batch)) == [
        "unchanged" if s == "appended" else s for s in expected
    ]


def test_nothing_is_ever_updated(ledger, database):
    ledger.append("events", [event()])
    with database.connect() as connection, pytest.raises(DBAPIError, match="append-only: events"):
        connection.execute(sa.text("UPDATE ledger.events SET quantity = 9"))


def test_many_writers_of_the_same_rows_append_each_once(ledger, url):
    rows = [event(f"e{number}") for number in range(200)]

    def write(turn):
        with open_ledger(url, contracts(), mask=MASK, clock=lambda: NOW) as own:
            turned = rows[turn * 20 :] + rows[: turn * 20]
            return [
                result
                for start in range(0, 200, 50)
                for result in own.append("events", turned[start : start + 50])
            ]

    with ThreadPoolExecutor(6) as pool:
        told = [result for results in pool.map(write, range(6)) for result in results]
    assert sorted(one.id for one in told if one.status == "appended") == sorted(
        row["event_id"] for row in rows
    )
    assert {one.status for one in told} == {"appended", "unchanged"}
    assert ledger.counts()["events"].rows == 200


def test_one_ledger_serves_several_threads(ledger):
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: ledger.append("events", [event(f"e{n % 40}")])[0].status, range(120)))
    assert told.count("appended") == 40 and ledger.counts()["events"].rows == 40


KILLED = """
import sys, time
import sqlalchemy as sa
from datetime import datetime, UTC
from serving.ledger.ledger import open_ledger
from tests.ledgers import MASK, NOW, contracts, event

with open_ledger({url!r}, contracts(), mask=MASK, clock=lambda: NOW) as ledger:
    ledger.append("events", [event("before")])
    @sa.event.listens_for(ledger._engine, "commit")
    def hang(_connection):
        print("sent", flush=True)
        time.sleep(600)
    ledger.append("events", [event("lost"), event("too")])
"""


def test_a_writer_that_is_killed_between_send_and_commit_leaves_nothing(ledger, url, database):
    argv = [sys.executable, "-c", textwrap.dedent(KILLED.format(url=url))]
    writer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=dict(os.environ))
    assert writer.stdout.readline() == "sent\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert [row["event_id"] for row in stored(database, "events")] == ["before"]
    # the same rows again, as its client sends them that was told nothing
    told = ledger.append("events", [event("before"), event("lost"), event("too")])
    assert statuses(told) == ["unchanged", "appended", "appended"]


def test_a_database_that_is_not_there_is_told_without_its_password():
    nowhere = f"postgresql+psycopg2://ledger:hush@127.0.0.1:{free_port()}/ledger"
    with (
        pytest.raises(TransientError, match="refused") as caught,
        open_ledger(nowhere, contracts(), mask=MASK),
    ):
        pass
    assert "hush" not in str(caught.value)


def test_a_lost_connection_is_told_and_the_next_append_succeeds(ledger, database):
    ledger.append("events", [event()])
    with database.begin() as connection:
        others = "FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) {others}"))
    assert statuses(ledger.append("events", [event("e2")])) == ["appended"]


def test_a_column_that_a_contract_gains_is_added_to_the_table(ledger, url, database):
    with database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE ledger.events DROP COLUMN place"))
    with open_ledger(url, contracts(), mask=MASK, clock=lambda: NOW) as again:
        assert statuses(again.append("events", [event(place="shop 1")])) == ["appended"]
    assert stored(database, "events")[0]["place"] == "shop 1"


def test_opening_a_ledger_waits_for_no_writer(ledger, url, database):
    with database.connect() as writer:
        columns = "event_id, user_id, event_type, event_timestamp"
        writer.execute(sa.text(f"INSERT INTO ledger.events ({columns}) VALUES ('w', 'u', 'view', now())"))  # noqa: S608
        with open_ledger(url, contracts(), mask=MASK, clock=lambda: NOW) as other:
            assert statuses(other.append("events", [event()])) == ["appended"]
        writer.commit()
    assert ledger.counts()["events"].rows == 2


def test_what_is_older_than_the_retention_goes_and_items_stay(ledger):
    ledger.append("events", [event()])
    ledger.append("items", [{"item_id": "c1", "item_type": "campaign"}])
    recorded = datetime.now(NOW.tzinfo)
    assert sum(ledger.forget_before(recorded - timedelta(days=1)).values()) == 0
    assert ledger.forget_before(recorded + timedelta(days=1))["events"] == 1
    assert (ledger.counts()["events"].rows, ledger.counts()["items"].rows) == (0, 1)


def test_an_erased_shopper_is_gone_everywhere_and_does_not_come_back(ledger, database):
    ledger.append("events", [event(), event("other", user_id="u2"), event("bad", event_type="hug")])
    ledger.append("exposures", [exposure(), exposure("theirs", user_id="u2")])
    outcome = {"outcome": 1, "outcome_timestamp": "2026-11-29T11:00:00Z"}
    told = ledger.append(
        "outcomes",
        [
            {"outcome_id": "of x1", "exposure_id": "x1", **outcome},
            {"outcome_id": "of a file's", "exposure_id": "x of a file", **outcome},
            {"outcome_id": "of theirs", "exposure_id": "theirs", **outcome},
            {"outcome_id": "early", "exposure_id": "x later", **outcome},
        ],
    )
    assert statuses(told) == ["appended"] * 4
    removed = ledger.erase("u1", ["x of a file"])
    assert removed == {
        "events": 1,
        "exposures": 1,
        "outcomes": 2,
        "feedback": 0,
        "decisions": 0,
        "quarantine": 1,
    }
    back = ledger.append("exposures", [exposure(), exposure("x later"), exposure("more", user_id="u2")])
    assert statuses(back) == ["erased", "erased", "appended"]
    assert statuses(ledger.append("events", [event("bad", event_type="hug")])) == ["erased"]
    assert [row["outcome_id"] for row in stored(database, "outcomes")] == ["of theirs"]
    ledger.vacuum()
    for table in (*TABLES, "quarantine", "erased"):
        with database.connect() as connection:
            text = sa.text(f"SELECT count(*) FROM ledger.{table} AS t WHERE t::text ~ '\\mu1\\M'")  # noqa: S608
            assert connection.scalar(text) == 0, table
