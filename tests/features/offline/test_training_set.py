"""Examples through a real Feast store, of a whole shop and of one that brings the two required tables only."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from expectations.contracts.examples import (
    INTERACTION_HISTORY_SCHEMA,
    NEXT_INTERACTION_SCHEMA,
    ROW_SCHEMA,
    TEXT_SCHEMA,
    ExampleSchema,
)
from tests.features import small_shop
from tests.features.built_shop import build

pytestmark = pytest.mark.slow
WINDOW = pd.Timedelta(days=small_shop.SOURCE.outcome_window["campaign"])


@pytest.fixture(scope="module", params=["every table", "items and exposures only"])
def shop(request, tmp_path_factory):
    tables = small_shop.frames()
    tables["exposures"].loc[:1, ["outcome", "outcome_timestamp"]] = None
    if request.param != "every table":
        tables = {name: tables[name] for name in ("items", "exposures")}
    home = tmp_path_factory.mktemp("shop")
    built = build(small_shop.SOURCE, small_shop.land(home / "checked", tables), home)
    return tables, built.examples, built.snapshots


def test_each_known_exposure_is_one_row_in_order_of_time(shop):
    tables, examples, _ = shop
    rows = pd.read_parquet(examples / "rows.parquet")
    closed = tables["exposures"]["event_timestamp"] + WINDOW <= ExampleSchema.read(examples).horizon
    known = tables["exposures"][closed].dropna(subset=["outcome"])
    assert len(rows) == len(known) and (closed.all() == ("events" in tables))
    labels = known.set_index("exposure_id")["outcome"].astype(int)
    assert rows.set_index("exposure_id")["label"].astype(int).to_dict() == labels.to_dict()
    assert rows["event_timestamp"].is_monotonic_increasing


def test_files_keep_their_contract(shop):
    _, examples, _ = shop
    schema = ExampleSchema.read(examples)
    rows = pq.read_schema(examples / "rows.parquet")
    assert rows.names == [*ROW_SCHEMA.names, *schema.numeric, *schema.categorical]
    for name, expected in (
        ("interaction_histories", INTERACTION_HISTORY_SCHEMA),
        ("texts", TEXT_SCHEMA),
        ("next_interactions", NEXT_INTERACTION_SCHEMA),
    ):
        found = pq.read_schema(examples / f"{name}.parquet")
        assert found.names == expected.names
        assert [str(field.type).replace("element", "item") for field in found] == [
            str(field.type).replace("element", "item") for field in expected
        ]


def test_features_are_those_of_the_very_event_timestamp(shop):
    _, examples, feature_rows = shop
    rows = pd.read_parquet(examples / "rows.parquet")
    for view, key in (
        ("user_behaviour", "user_id"),
        ("user_outcomes", "user_id"),
        ("item_outcomes", "item_id"),
    ):
        direct = pd.read_parquet(feature_rows / f"{view}.parquet")
        joined = rows[[key, "event_timestamp"]].merge(direct, on=[key, "event_timestamp"], how="left")
        for name in direct.columns.difference([key, "event_timestamp"]):
            np.testing.assert_allclose(rows[name], joined[name].astype("float32"), rtol=1e-6, err_msg=name)


def test_query_groups_texts_and_histories_belong_together(shop):
    tables, examples, _ = shop
    rows = pd.read_parquet(examples / "rows.parquet")
    texts = pd.read_parquet(examples / "texts.parquet")["text"]
    items = tables["items"].set_index("item_id")
    texts_of_items = items["text"] + " " + items["terms"].fillna("")
    assert (texts[rows["text_id"]].tolist() == texts_of_items[rows["item_id"]].str.strip()).all()
    queries = rows["query_id"].map(lambda number: texts[number] if number >= 0 else "")
    queries_of_exposures = (
        tables["exposures"].set_index("exposure_id")["query_text"][rows["exposure_id"]].fillna("")
    )
    assert all(query.startswith(words) for query, words in zip(queries, queries_of_exposures, strict=True))
    assert rows.groupby("query_group_id")[["user_id", "event_timestamp"]].nunique().max().max() == 1
    histories = pd.read_parquet(examples / "interaction_histories.parquet")
    assert set(rows["history_id"]) <= set(histories["history_id"])
    assert ("events" in tables) == (histories["text_ids"].map(len).max() > 0)
