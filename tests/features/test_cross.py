import ibis
import pandas as pd
import pytest

from features.cross import CROSS_FEATURES, RECENCIES, cross_features, history_keys, unnest_items

HISTORIES = pd.DataFrame(
    {
        "history_id": [0, 1],
        "items": [["p1", "p2", "p9"], []],
        "item_visits": [[2.0, 1.0, 1.0], []],
        "item_recents": [[1.0, 0.0, 0.0], []],
        "item_coupons": [[0.0, 1.0, 0.0], []],
        "item_amounts": [[6.0, 3.0, 5.0], []],
        "item_days": [[4.0, 40.0, 30.0], []],
        "item_firsts": [[60.0, 40.0, 30.0], []],
    }
)
LEVELS = pd.DataFrame(
    [
        ("p1", "item", "p1"),
        ("p2", "item", "p2"),
        ("p9", "item", "p9"),
        ("p1", "topic", "dairy, milk"),
        ("p2", "topic", "dairy, milk"),
        ("p9", "topic", "fish"),
        ("p1", "department", "food"),
        ("p2", "department", "food"),
        ("p9", "department", "food"),
    ],
    columns=["item_id", "level", "key"],
)
ITEM_KEYS = pd.DataFrame(
    [
        ("c1", "item", "p1", 1.0, 0.5),
        ("c1", "item", "p3", 1.0, 0.5),
        ("c1", "topic", "dairy, milk", 1.0, 0.25),
        ("c1", "topic", "dairy, cheese", 3.0, 0.75),
        ("c1", "department", "food", 4.0, 1.0),
        ("c2", "item", "p7", 1.0, 1.0),
        ("c2", "topic", "bread", 1.0, 1.0),
    ],
    columns=["item_id", "level", "key", "covered", "weight"],
)
PAIRS = pd.DataFrame({"pair_id": [0, 1, 2], "history_id": [0, 0, 1], "item_id": ["c1", "c2", "c1"]})


@pytest.fixture(scope="module")
def found():
    lists = dict.fromkeys(HISTORIES.columns[1:], "array<float64>") | {"items": "array<string>"}
    histories = ibis.memtable(HISTORIES, schema={"history_id": "int64", **lists})
    met = history_keys(unnest_items(histories), ibis.memtable(LEVELS))
    table = cross_features(ibis.memtable(PAIRS), history_keys=met, item_keys=ibis.memtable(ITEM_KEYS))
    return table.execute().set_index("pair_id").sort_index()


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("item", {"visits": 2, "recent": 1, "coupons": 0, "amount": 6, "days": 4, "first": 60, "matches": 1}),
        (
            "topic",
            {"visits": 3, "recent": 1, "coupons": 1, "amount": 9, "days": 4, "first": 60, "matches": 1},
        ),
        (
            "department",
            {"visits": 4, "recent": 1, "coupons": 1, "amount": 14, "days": 4, "first": 60, "matches": 1},
        ),
    ],
)
def test_a_candidate_whose_products_were_bought(found, level, expected):
    assert found.loc[0, [f"cross_{level}_{name}" for name in expected]].tolist() == list(expected.values())


def test_affinity_weighs_visits_by_what_the_candidate_is_mostly_about(found):
    assert found.loc[0, ["cross_item_affinity", "cross_topic_affinity"]].tolist() == [1.0, 0.75]


@pytest.mark.parametrize("pair", [1, 2])
def test_nothing_in_common_is_zero_and_no_recency(found, pair):
    recencies = [name for name in CROSS_FEATURES if name.endswith(RECENCIES)]
    assert found.loc[pair, recencies].isna().all()
    assert (found.loc[pair, [name for name in CROSS_FEATURES if name not in recencies]] == 0).all()


def test_one_row_a_pair(found):
    assert found.index.tolist() == [0, 1, 2]
    assert list(found.columns) == list(CROSS_FEATURES)
