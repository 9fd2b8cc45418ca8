"""No extra column can take the name of a feature that is computed, or of what a request says itself."""

import pandas as pd

from expectations.contracts.extra_columns import RESERVED
from expectations.contracts.shop_tables import CONTRACTS
from features.offline.engine import open_engine
from features.offline.feature_rows import feature_tables
from features.views.request_context import CALENDAR_FEATURES, CONTEXT_FEATURES
from features.views.shop import read_shop
from serving.api.schema import Context
from tests.features.small_shop import SOURCE, frames, land


def test_names_of_features_are_reserved(tmp_path):
    shop = read_shop(open_engine(), land(tmp_path, frames()), SOURCE)
    computed = feature_tables(SOURCE, shop, pd.Timestamp("2025-01-01").to_pydatetime())
    views = ("user_behaviour", "user_outcomes", "user_history", "user_attributes", "user_texts")
    views += ("item_outcomes", "item_attributes")
    names = {column for view in views for column in computed[view].columns} | set(CALENDAR_FEATURES)
    for prefix, table in (("user_", "users"), ("item_", "items")):
        own = {column.name for column in SOURCE.contracts()[table].columns}
        computed_names = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        assert computed_names - own <= RESERVED[table], computed_names - own - RESERVED[table]


def test_what_a_request_says_is_reserved():
    own = {column.name for column in CONTRACTS["exposures"].columns}
    assert set(Context.model_fields) - own <= RESERVED["exposures"]
    assert {name.removeprefix("context_") for name in CONTEXT_FEATURES} <= RESERVED["exposures"]
