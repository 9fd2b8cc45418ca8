"""What a request is served, in a shop with positions and anonymous readers and without events."""

import pandas as pd
import pytest

from expectations.contracts.shop_tables import COLD_START_USER
from features.online.consistency import compare_stores
from features.online.reader import DecisionRequest, OnlineFeatures
from tests.features import small_shop
from tests.features.built_shop import build
from tests.features.outcome_shop import DAY, SOURCE, tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    home = tmp_path_factory.mktemp("outcomes")
    return build(SOURCE, small_shop.land(home / "checked", tables(), SOURCE), home)


def _batch(shop, user):
    features = OnlineFeatures(shop.store, SOURCE, shop.horizon)
    as_of = (DAY + pd.Timedelta(days=1)).to_pydatetime()
    return features.scoring_batch(DecisionRequest(user_id=user, scenario="content", as_of=as_of, context={}))


def test_everything_is_scored_at_the_first_position_most_popular_first(shop):
    batch = _batch(shop, "u")
    assert batch.rows["context_position"].tolist() == [1.0, 1.0]
    assert batch.rows["user_num_exposures"].tolist() == [4.0, 4.0]
    assert batch.rows["item_outcome_lift"].is_monotonic_decreasing
    assert batch.rows["item_outcome_lift"].nunique() == 2


@pytest.mark.parametrize("user", ["", COLD_START_USER])
def test_an_anonymous_reader_is_served_as_a_cold_start_user(shop, user):
    batch = _batch(shop, user)
    assert not batch.known and list(batch.topics) == []
    assert batch.rows["user_num_exposures"].tolist() == [0.0, 0.0]


def test_online_outcomes_are_those_of_the_offline_join(shop):
    found = compare_stores(shop.store, shop.horizon)
    assert found.num_users == 2 and found.num_differences == 0, found.differences
