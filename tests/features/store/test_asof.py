"""The offline store's as-of join against pandas' own, at times of no feature row and before the first."""

import duckdb
import pandas as pd
import pytest

from features.store.client import historical, historical_sql, open_store
from features.views.feature_schema import USER_SERVICE
from tests.features import small_shop
from tests.features.built_shop import build
from tests.features.outcome_shop import DAY, SOURCE, tables

pytestmark = pytest.mark.slow
COLUMNS = ["user_num_exposures", "user_outcome_lift"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    home = tmp_path_factory.mktemp("asof")
    return build(SOURCE, small_shop.land(home / "checked", tables(), SOURCE), home)


@pytest.fixture(scope="module")
def entities():
    hours = [-1.0, 2.0, 2.5, 3.0, 500.0]
    times = (DAY + pd.to_timedelta(hours, unit="h")).astype("datetime64[us]")
    frames = [pd.DataFrame({"user_id": user, "event_timestamp": times}) for user in ("u", "nobody")]
    return pd.concat(frames, ignore_index=True)


def _expected(shop, entities):
    rows = pd.read_parquet(shop.snapshots / "user_outcomes.parquet").sort_values("event_timestamp")
    rows["event_timestamp"] = rows["event_timestamp"].astype("datetime64[us]")
    joined = pd.merge_asof(entities.sort_values("event_timestamp"), rows, on="event_timestamp", by="user_id")
    return _ordered(joined)


def _ordered(frame):
    return frame.sort_values(["user_id", "event_timestamp"])[COLUMNS].reset_index(drop=True).astype(float)


def test_each_row_has_the_newest_features_at_or_before_its_time(shop, entities):
    table = historical(open_store(shop.store), USER_SERVICE, entities)
    found = table.to_pandas()
    expected = _expected(shop, entities)
    assert expected["user_num_exposures"].isna().sum() == 6 and expected["user_num_exposures"].max() == 4
    pd.testing.assert_frame_equal(_ordered(found), expected)
    assert found["context_utc_hour"].notna().all()


def test_the_same_join_as_sql_runs_in_an_engine_of_ones_own(shop, entities):
    sql = historical_sql(open_store(shop.store), USER_SERVICE, "SELECT * FROM entity_rows")
    with duckdb.connect() as connection:
        connection.register("entity_rows", entities)
        found = connection.sql(sql).to_df()
    pd.testing.assert_frame_equal(_ordered(found), _expected(shop, entities))
    assert "context_utc_hour" not in found
