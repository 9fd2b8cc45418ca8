"""Entities, feature views and feature services of the Feast repo.

Every view reads one Parquet file of feature rows (one row per entity and event_timestamp) that the feature
modules have computed; Feast joins them to examples point in time, and serves the latest online.
The views of attributes have the columns that a source declared, so the repo is built for a source.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_source import RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, String

from expectations.errors import SchemaError
from features.views.feature_schema import CANDIDATE_SERVICE, USER_SERVICE
from features.views.request_context import CALENDAR_FEATURES, CONTEXT_FEATURES

OWNER = "recommender"
USER_VIEWS = ("user_behaviour", "user_outcomes", "user_attributes", "user_history")
ITEM_VIEWS = ("item_outcomes", "item_attributes")


def feature_repo(folder: Path) -> list[Any]:
    """All Feast objects of a source's repo, for the columns of the Parquet files of USER_VIEWS and ITEM_VIEWS there.

    Raises:
        SchemaError: a view's file is missing.
    """
    try:
        schemas = {name: pq.read_schema(folder / f"{name}.parquet") for name in (*USER_VIEWS, *ITEM_VIEWS)}
    except FileNotFoundError as error:
        raise SchemaError(f"a file of {folder} is missing ({error}); build them again") from None
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a shopper")
    thing = "a thing that can be shown"
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description=thing)
    views = {
        name: _view(name, schema, user if name in USER_VIEWS else item) for name, schema in schemas.items()
    }
    clock = _clock_view()
    calendar = _calendar_view(views["item_attributes"])
    services = [
        FeatureService(
            name=USER_SERVICE,
            features=[*(views[name] for name in USER_VIEWS), clock],
            description="everything known of a shopper at a time",
            owner=OWNER,
        ),
        FeatureService(
            name=CANDIDATE_SERVICE,
            features=[*(views[name] for name in ITEM_VIEWS), calendar],
            description="everything known of a candidate at a time",
            owner=OWNER,
        ),
    ]
    return [user, item, *views.values(), clock, calendar, *services]


def _view(name: str, schema: pa.Schema, entity: Entity) -> FeatureView:
    columns = [column for column in schema if column.name not in (entity.join_key, "event_timestamp")]
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(0),  # a row holds until a later one replaces it
        schema=[Field(name=column.name, dtype=_dtype(column.type)) for column in columns],
        source=FileSource(name=f"{name}_rows", path=f"{name}.parquet", timestamp_field="event_timestamp"),
        online=True,
        owner=OWNER,
    )


def _dtype(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Array(_dtype(kind.value_type))
    return {pa.float64(): Float64, pa.string(): String}[kind]


def _clock_view() -> Any:
    as_of = RequestSource(name="clock_request", schema=[Field(name="as_of", dtype=Float64)])

    @on_demand_feature_view(
        sources=[as_of],
        schema=[Field(name=name, dtype=Float64) for name in CONTEXT_FEATURES],
        mode="pandas",
        description="what the clock says at as_of, in UTC",
    )
    def context_clock(inputs: pd.DataFrame) -> pd.DataFrame:
        from features.views.request_context import clock_features  # Feast runs this body on its own

        return pd.DataFrame(clock_features(inputs["as_of"].tolist()))

    return context_clock


def _calendar_view(attributes: FeatureView) -> Any:
    as_of = RequestSource(name="calendar_request", schema=[Field(name="as_of", dtype=Float64)])

    @on_demand_feature_view(
        sources=[as_of, attributes],
        schema=[Field(name=name, dtype=Float64) for name in CALENDAR_FEATURES],
        mode="pandas",
        description="where as_of lies in the candidate's validity, in days",
    )
    def item_calendar(inputs: pd.DataFrame) -> pd.DataFrame:
        from features.views.request_context import calendar_features

        found = calendar_features(
            inputs["as_of"].tolist(), inputs["item_valid_from"].tolist(), inputs["item_valid_until"].tolist()
        )
        return pd.DataFrame(found, dtype="float64")

    return item_calendar
