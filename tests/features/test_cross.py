import ibis
import pandas as pd
import pytest

from features.cross import CROSS_FEATURES, cross_features, unnest_items, unnest_topics

HISTORIES = pd.DataFrame(
    {
        "history_id": [0, 1],
        "topics": [["dairy, milk", "fish"], []],
        "topic_visits": [[3.0, 1.0], []],
        "topic_amounts": [[9.0, 5.0], []],
        "topic_days": [[2.0, 30.0], []],
        "items": [["p1", "p9"], []],
        "item_visits": [[2.0, 1.0], []],
        "item_amounts": [[6.0, 5.0], []],
        "item_days": [[4.0, 30.0], []],
    }
)
TOPICS = pd.DataFrame(
    {
        "item_id": ["c1", "c1", "c2"],
        "topic": ["dairy, milk", "dairy, cheese", "bread"],
        "department": ["dairy", "dairy", "bread"],
        "weight": [0.25, 0.75, 1.0],
    }
)
COVERAGE = pd.DataFrame({"item_id": ["c1", "c1", "c2"], "covered_id": ["p1", "p2", "p3"]})
PAIRS = pd.DataFrame({"pair_id": [0, 1, 2], "history_id": [0, 0, 1], "item_id": ["c1", "c2", "c1"]})


@pytest.fixture(scope="module")
def found():
    list_types = dict.fromkeys(HISTORIES.columns[1:], "array<float64>") | {
        "topics": "array<string>",
        "items": "array<string>",
    }
    histories = ibis.memtable(HISTORIES, schema={"history_id": "int64", **list_types})
    table = cross_features(
        ibis.memtable(PAIRS),
        history_topics=unnest_topics(histories),
        history_items=unnest_items(histories),
        item_topics=ibis.memtable(TOPICS),
        coverage=ibis.memtable(COVERAGE),
    )
    return table.execute().set_index("pair_id").sort_index()


def test_a_candidate_whose_products_were_bought(found):
    expected = {
        "cross_item_visits": 2,
        "cross_item_amount": 6,
        "cross_item_days": 4,
        "cross_item_matches": 1,
        "cross_topic_visits": 3,
        "cross_topic_amount": 9,
        "cross_topic_days": 2,
        "cross_topic_matches": 1,
        "cross_topic_share": 0.75,
        "cross_topic_affinity": 0.75,
        "cross_department_visits": 3,
        "cross_department_amount": 9,
    }
    assert found.loc[0].to_dict() == expected


@pytest.mark.parametrize("pair", [1, 2])
def test_nothing_in_common_is_zero_and_no_recency(found, pair):
    recencies = ["cross_item_days", "cross_topic_days"]
    assert found.loc[pair, recencies].isna().all()
    assert (found.loc[pair, [name for name in CROSS_FEATURES if name not in recencies]] == 0).all()
