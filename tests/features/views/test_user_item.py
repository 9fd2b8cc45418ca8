import ibis
import numpy as np
import pandas as pd
import pytest

from features.online.user_item_arrays import UserItemArrays
from features.views import shop
from features.views.user_item import USER_ITEM_FEATURES, history_keys, unnest_items, user_item_features

INTERACTION_HISTORIES = pd.DataFrame(
    {
        "history_id": [0, 1],
        "items": [["p1", "p2", "p9"], []],
        "item_sessions": [[2.0, 1.0, 1.0], []],
        "item_recents": [[1.0, 0.0, 0.0], []],
        "item_coupons": [[0.0, 1.0, 0.0], []],
        "item_amounts": [[6.0, 3.0, 5.0], []],
        "item_days": [[4.0, 40.0, 30.0], []],
        "item_firsts": [[60.0, 40.0, 30.0], []],
    }
)
TOPICS = {"p1": "dairy, milk", "p2": "dairy, milk", "p9": "fish"}
LEVELS = pd.DataFrame(
    [
        (item, level, key)
        for item, topic in TOPICS.items()
        for level, key in (("item", item), ("topic", topic), ("department", "food"))
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


def offline(pairs, histories, levels, item_keys):
    lists = dict.fromkeys(INTERACTION_HISTORIES.columns[1:], "array<float64>") | {"items": "array<string>"}
    lists = ibis.memtable(histories, schema={"history_id": "int64", **lists})
    met = history_keys(unnest_items(lists), ibis.memtable(levels))
    table = user_item_features(ibis.memtable(pairs), history_keys=met, item_keys=ibis.memtable(item_keys))
    return table.execute().set_index("pair_id").sort_index()


@pytest.fixture(scope="module")
def found():
    return offline(PAIRS, INTERACTION_HISTORIES, LEVELS, ITEM_KEYS)


MEASURES = ("sessions", "recent", "coupons", "amount", "days", "first", "matches")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("item", [2, 1, 0, 6, 4, 60, 1]),
        ("topic", [3, 1, 1, 9, 4, 60, 1]),
        ("department", [4, 1, 1, 14, 4, 60, 1]),
    ],
)
def test_a_candidate_whose_products_were_bought(found, level, expected):
    assert found.loc[0, [f"user_item_{level}_{name}" for name in MEASURES]].tolist() == expected


def test_affinity_weighs_sessions_by_what_the_candidate_is_mostly_about(found):
    assert found.loc[0, ["user_item_item_affinity", "user_item_topic_affinity"]].tolist() == [1.0, 0.75]


@pytest.mark.parametrize("pair", [1, 2])
def test_nothing_in_common_is_zero_and_no_recency(found, pair):
    recencies = [name for name in USER_ITEM_FEATURES if name.endswith(("_days", "_first"))]
    assert found.loc[pair, recencies].isna().all()
    assert (found.loc[pair, [name for name in USER_ITEM_FEATURES if name not in recencies]] == 0).all()


def test_one_row_a_pair(found):
    assert found.index.tolist() == [0, 1, 2]
    assert list(found.columns) == list(USER_ITEM_FEATURES)


def random_shop(rng, num_items=60, num_candidates=12):
    """Levels of items and keys of candidates, as `features.views.shop` makes them, in any order."""
    levels = [
        (f"p{item}", level, f"{level[0]}{item % 2**width}" if width else f"p{item}")
        for item in range(num_items)
        for width, level in enumerate(shop.LEVELS)
        if rng.random() < 0.9
    ]
    keys = [
        (f"c{candidate}", level, key, rng.integers(1, 128) / 128)
        for candidate in range(num_candidates)
        for level, key in sorted({levels[at][1:] for at in rng.integers(len(levels), size=20)})
    ]
    items = pd.DataFrame(keys, columns=["item_id", "level", "key", "weight"])
    return pd.DataFrame(levels, columns=LEVELS.columns).sample(frac=1, random_state=1), items.assign(
        covered=1.0
    )


@pytest.mark.parametrize("length", [0, 5, 45])
def test_a_request_sees_what_an_example_sees(length, tmp_path):
    rng = np.random.default_rng(length)
    levels, item_keys = random_shop(rng)
    levels.to_parquet(tmp_path / "levels.parquet")
    item_keys.to_parquet(tmp_path / "item_keys.parquet")
    items = rng.permutation([f"p{item}" for item in range(70)])[:length].tolist()  # some belong to nothing
    lists = {name: rng.integers(0, 9, size=length) / 2 for name in INTERACTION_HISTORIES.columns[2:]}
    history = {"items": items} | {name: values.tolist() for name, values in lists.items()}
    candidates = ["c3", "nobody knows", *(f"c{number}" for number in range(12) if number != 3)]
    pairs = pd.DataFrame({"pair_id": range(13), "history_id": 0, "item_id": candidates})
    expected = offline(pairs, pd.DataFrame([{"history_id": 0, **history}]), levels, item_keys)
    served = pd.DataFrame(UserItemArrays(tmp_path).features(history, candidates))[list(USER_ITEM_FEATURES)]
    pd.testing.assert_frame_equal(served, expected.astype("float32"), check_names=False, check_exact=True)
    assert (served["user_item_line_matches"] > 0).any() == (length > 0)
