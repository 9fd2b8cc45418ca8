from datetime import timedelta

import ibis
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from features.views.windows import WindowAggregation, aggregate_before

START = pd.Timestamp("2024-01-01")
AGGREGATIONS = (
    WindowAggregation(name="number"),
    WindowAggregation(name="total", column="x"),
    WindowAggregation(name="recent", column="x", days=3),
    WindowAggregation(name="last", column="x", how="last"),
)
entity_and_hour = st.tuples(st.sampled_from("ab"), st.integers(0, 24 * 10))
facts = st.lists(st.tuples(entity_and_hour, st.integers(0, 5)), min_size=1, max_size=30)
entity_rows = st.lists(entity_and_hour, min_size=1, max_size=10, unique=True)


def _expected(facts, entity, as_of):
    before = [(START + timedelta(hours=hour), x) for (e, hour), x in facts if e == entity]
    before = [(when, x) for when, x in before if when < as_of]
    recent = [x for when, x in before if when >= as_of - timedelta(days=3)]
    last = [when for when, x in before if x]
    return len(before), sum(x for _, x in before), sum(recent), max(last, default=pd.NaT)


def _found(facts, entity_rows):
    facts = pd.DataFrame(facts, columns=["who", "event_timestamp", "x"])
    rows = ibis.memtable(pd.DataFrame(entity_rows, columns=["who", "event_timestamp"]))
    return aggregate_before(ibis.memtable(facts), rows, by="who", aggregations=AGGREGATIONS).execute()


@settings(max_examples=30, deadline=None)
@given(facts=facts, entity_rows=entity_rows)
def test_totals_are_those_of_a_loop_over_everything_strictly_before(facts, entity_rows):
    found = _found(
        [(e, START + timedelta(hours=hour), float(x)) for (e, hour), x in facts],
        [(e, START + timedelta(hours=hour)) for e, hour in entity_rows],
    )
    assert len(found) == len(entity_rows)
    for row in found.itertuples():
        count, total, recent, last = _expected(facts, row.who, row.event_timestamp)
        assert (row.number, row.total, row.recent) == (count, total, recent)
        assert (pd.isna(row.last) and pd.isna(last)) or row.last == last


def test_what_happens_at_an_instant_is_not_known_at_it():
    row = _found([("a", START, 1.0)], [("a", START)]).iloc[0]
    assert row["number"] == row["total"] == row["recent"] == 0
    assert pd.isna(row["last"])
