"""Examples of a shop with requests, anonymous readers, positions, aggregates and grades, and without events."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from expectations.contracts.examples import ExampleSchema
from expectations.errors import DataError
from features.offline.feature_rows import build_feature_rows
from tests.features import small_shop
from tests.features.built_shop import build
from tests.features.outcome_shop import DAY, SOURCE, tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    home = tmp_path_factory.mktemp("kinds")
    return build(SOURCE, small_shop.land(home / "checked", tables(), SOURCE), home).examples


@pytest.fixture(scope="module")
def rows(examples):
    return pd.read_parquet(examples / "rows.parquet").set_index("exposure_id")


def test_labels_are_rates_and_gains_and_weights_are_impressions(rows):
    assert rows.index.tolist() == ["x0", "x1", "x2", "x3", "x4"]
    np.testing.assert_allclose(rows["label"], [0.05, 0.0, 1.0, 1 / 7, 0.0], rtol=1e-6)
    assert rows["weight"].tolist() == [200, 100, 1, 1, 1]


def test_groups_are_requests_or_the_same_user_scenario_query_and_time(rows):
    groups = rows["query_group_id"]
    assert groups["x0"] == groups["x1"] and groups["x2"] == groups["x3"]
    assert groups.nunique() == 3


def test_anonymous_exposures_of_no_request_are_each_alone(tmp_path):
    made = tables()
    last = (
        made["exposures"]
        .iloc[[4, 4]]
        .assign(
            exposure_id=["y0", "y1"],
            item_id=["a", "b"],
            user_id=None,
            event_timestamp=DAY + pd.Timedelta(hours=4),
        )
    )
    made["exposures"] = pd.concat([made["exposures"], last], ignore_index=True)
    folder = build(SOURCE, small_shop.land(tmp_path / "checked", made, SOURCE), tmp_path).examples
    groups = pd.read_parquet(folder / "rows.parquet").set_index("exposure_id")["query_group_id"]
    assert groups["y0"] != groups["y1"]


def test_an_anonymous_reader_has_no_name_and_no_past(rows):
    assert rows["user_id"].tolist() == ["", "", "u", "u", "u"]
    assert rows.loc[["x0", "x1"], "user_num_exposures"].eq(0).all()
    assert rows.loc["x4", "user_num_exposures"] == 2
    assert rows.loc[["x0", "x1"], "user_known"].eq(0).all()


def test_the_item_counts_impressions_and_clicks(rows):
    assert rows.loc["x2", ["item_num_exposures", "item_num_outcomes"]].tolist() == [200, 10]
    assert rows.loc["x4", ["item_num_exposures", "item_num_outcomes"]].tolist() == [201, 11]


def test_position_is_a_feature_where_the_shop_has_one(rows, examples):
    schema = ExampleSchema.read(examples)
    assert schema.position == "context_position" and "context_position" in schema.numeric
    assert rows["context_position"].tolist()[:2] == [1, 2] and rows["context_position"].isna().sum() == 3
    assert "propensity" not in {*schema.numeric, *schema.categorical}


def test_popularity_without_events_is_the_past_outcome_rate(examples, rows):
    assert ExampleSchema.read(examples).popularity == "item_outcome_lift"
    assert rows["item_outcome_lift"].nunique() > 1


def test_nothing_is_left_of_what_the_engine_wrote_on_the_side(examples):
    assert sorted(path.name for path in examples.iterdir()) == sorted(
        [
            "rows.parquet",
            "texts.parquet",
            "interaction_histories.parquet",
            "next_interactions.parquet",
            "schema.json",
        ]
    )


def test_a_shop_whose_windows_are_all_open_is_told_so(tmp_path):
    source = replace(SOURCE, outcome_window={"default": 7.0})
    with pytest.raises(DataError, match=r"exposures: none of 7 .*outcome_window"):
        build(source, small_shop.land(tmp_path / "checked", tables(), source), tmp_path)


def test_another_outcome_window_makes_other_features(tmp_path):
    checked = small_shop.land(tmp_path / "checked", tables(), SOURCE)
    versions = {
        build_feature_rows(source, checked, tmp_path / "rows")[0]["version"]
        for source in (SOURCE, replace(SOURCE, outcome_window={"default": 1.0}))
    }
    assert len(versions) == 2
