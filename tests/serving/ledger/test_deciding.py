"""Deciding upon a real PostgreSQL: all rows or none, one shopper at a time, exposures counted by window."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from expectations.errors import ImplementationError, RequestError
from serving.ledger.deciding import DecidedBefore, Window
from tests.ledgers import NOW, exposure, statuses, stored

pytestmark = pytest.mark.slow
AT = datetime(2026, 11, 29, 10)


def decision(decision_id="d1", **columns):
    return {
        "decision_id": decision_id,
        "user_id": "u1",
        "scenario": "campaign",
        "event_timestamp": "2026-11-29T10:00:00Z",
        "asked": {"k": 1},
        "reply": {"items": [{"propensity": 0.1 + 0.2}], "none": None},
        **columns,
    }


def test_a_decision_and_what_it_shows_are_there_together(ledger, database):
    with ledger.deciding("u1") as deciding:
        assert deciding.decided("d1") is None
        deciding.append(decision(), [exposure(propensity=0.25, position=1, weather="sun")])
    (kept,) = stored(database, "exposures")
    assert (kept["propensity"], kept["position"], kept["extra"]) == (0.25, 1, {"weather": "sun"})
    expected = DecidedBefore(asked={"k": 1}, reply={"items": [{"propensity": 0.1 + 0.2}], "none": None})
    assert ledger.decided("d1") == expected
    with ledger.deciding("u1") as deciding:
        assert deciding.decided("d1") == expected


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [exposure(), exposure("x2", propensity=1.5)],
            r"kept in exposures: exposures\.propensity_in_bounds",
        ),
        (
            [exposure(event_timestamp=(NOW + timedelta(hours=1)).isoformat())],
            "event_timestamp_not_in_future",
        ),
        ([exposure(moon="full")], "moon: exposures has no such column"),
    ],
)
def test_where_one_row_is_refused_none_is_kept(ledger, database, rows, said):
    with pytest.raises(RequestError, match=said), ledger.deciding("u1") as deciding:
        deciding.append(decision(), rows)
    for table in ("decisions", "exposures", "quarantine"):
        assert stored(database, table) == []


def test_an_id_that_was_recorded_is_never_recorded_again(ledger, database):
    ledger.append("exposures", [exposure(position=3)])
    with pytest.raises(ImplementationError, match="x1 is in exposures already"), ledger.deciding("u1") as one:
        one.append(decision(), [exposure()])
    assert stored(database, "decisions") == []
    assert [row["position"] for row in stored(database, "exposures")] == [3]


def test_of_the_erased_no_decision_is_kept(ledger, database):
    ledger.erase("u1")
    with pytest.raises(RequestError, match="was erased"), ledger.deciding("u1") as deciding:
        deciding.append(decision(), [])
    assert stored(database, "decisions") == []


def test_an_erasure_takes_the_decisions_with_it(ledger):
    with ledger.deciding("u1") as deciding:
        deciding.append(decision(), [exposure()])
    removed = ledger.erase("u1")
    assert (removed["decisions"], removed["exposures"]) == (1, 1)
    assert ledger.decided("d1") is None


def test_exposures_are_counted_by_item_and_window(ledger):
    def at(name, hours, **columns):
        return exposure(name, event_timestamp=(AT - timedelta(hours=hours)).isoformat(), **columns)

    rows = [
        at("x0", 0),
        at("x1", 1, scenario="ad"),
        at("x2", 24),  # the window's beginning is exclusive
        at("x3", 23),
        at("x4", 47, item_id="c2", impressions=5, clicks=0),
        at("x5", 48, item_id="c2"),
        at("later", -1),
        at("other", 1, user_id="u2"),
    ]
    assert set(statuses(ledger.append("exposures", rows))) == {"appended"}
    day, two = AT - timedelta(days=1), AT - timedelta(days=2)
    windows = [Window(since=day), Window(since=two), Window(since=two, scenarios=("ad", "search"))]
    with ledger.deciding("u1") as deciding:
        assert deciding.exposure_counts("u1", windows, AT) == {"c1": (3, 4, 1), "c2": (0, 5, 0)}
        assert deciding.exposure_counts("u1", [], AT) == {}
        assert deciding.exposure_counts("nobody", windows, AT) == {}


def test_one_shopper_s_decisions_wait_for_each_other_and_no_other_s_do(ledger):
    inside, go = threading.Event(), threading.Event()

    def first():
        with ledger.deciding("u1") as deciding:
            inside.set()
            assert go.wait(10)
            deciding.append(decision(), [exposure()])

    def second():
        with ledger.deciding("u1") as deciding:
            return deciding.exposure_counts(
                "u1", [Window(since=AT - timedelta(days=1))], AT
            ), time.monotonic()

    with ThreadPoolExecutor() as pool:
        holder = pool.submit(first)
        assert inside.wait(10)
        waiting = pool.submit(second)
        with ledger.deciding("u2"):  # another shopper's
            pass
        time.sleep(0.3)
        assert not waiting.done()
        released = time.monotonic()
        go.set()
        holder.result(10)
        counts, ended = waiting.result(10)
    assert counts == {"c1": (1,)}
    assert ended > released


def test_a_cap_is_held_by_many_requests_at_once(ledger, database):
    """Ten requests, each shows c1 where it was shown fewer than 3 times so far."""

    def decide(number):
        with ledger.deciding("u1") as deciding:
            counts = deciding.exposure_counts("u1", [Window(since=AT - timedelta(days=1))], AT)
            shown = [exposure(f"x{number}")] if counts.get("c1", (0,))[0] < 3 else []
            deciding.append(decision(f"d{number}"), shown)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(decide, range(10)))
    assert len(stored(database, "decisions")) == 10
    assert len(stored(database, "exposures")) == 3
