"""The Feast store of a source: applied, filled, and read point in time or online."""

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.errors import SchemaError, TransientError

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

OWNER = "recommender"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where a source's Feast store lives.

    Attributes:
        project: Feast project, the source's name.
        registry_url: SQLAlchemy URL of the Postgres database that holds the registry. It has a
            password: never log it.
        online_path: SQLite file of the online store.
    """

    project: str
    registry_url: str
    online_path: Path


def open_store(settings: StoreSettings) -> "FeatureStore":
    """The Feast store with those settings: DuckDB's as-of joins offline, SQLite online, SQL registry.

    Raises:
        TransientError: the registry's database does not answer.
    """
    from feast import FeatureStore
    from feast.repo_config import RepoConfig
    from sqlalchemy.exc import OperationalError

    from features.store.asof import TYPE

    # Feast's import switches deprecation warnings on for everybody; this one is Ibis's, about DuckDB
    warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
    settings.online_path.parent.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project=settings.project,
        provider="local",
        registry={"registry_type": "sql", "path": settings.registry_url, "cache_ttl_seconds": 60},
        offline_store={"type": TYPE},
        online_store={"type": "sqlite", "path": str(settings.online_path)},
        entity_key_serialization_version=3,
        # the newest row of each entity, not all rows to take it from in pandas
        materialization_config={"pull_latest_features": True},
        auth={"type": "no_auth"},
    )
    try:
        return FeatureStore(config=config)
    except OperationalError as error:
        raise TransientError(
            "the Feast registry's database does not answer; is Postgres up? (make up)"
        ) from error


def apply_repo(store: "FeatureStore", feature_rows: Path) -> list[str]:
    """Register the feature views of a feature rows version, one Parquet file per view, and return their names.

    Raises:
        SchemaError: a view's file is missing.
    """
    from features.store.definitions import ITEM_VIEWS, USER_VIEWS, feature_repo

    try:
        schemas = {
            name: pq.read_schema(feature_rows / f"{name}.parquet") for name in (*USER_VIEWS, *ITEM_VIEWS)
        }
    except FileNotFoundError as error:
        raise SchemaError(f"a file of {feature_rows} is missing ({error}); build them again") from None
    with _without_advice():
        store.apply(feature_repo(schemas, feature_rows, owner=OWNER))
    return list(schemas)


def materialize(store: "FeatureStore", horizon: datetime) -> None:
    """Bring each entity's latest feature row up to the horizon into the online store."""
    end = horizon.replace(tzinfo=UTC) + timedelta(seconds=1)
    printed = io.StringIO()  # Feast prints each view's name in colours, on whatever console there is
    with _without_advice(), redirect_stdout(printed):
        store.materialize(start_date=datetime(1969, 12, 31, tzinfo=UTC), end_date=end)
    for line in filter(None, printed.getvalue().splitlines()):
        _log.info(_COLOUR.sub("", line))


def historical(store: "FeatureStore", service: str, entities: pd.DataFrame) -> pa.Table:
    """Features of a service as they were at each entity row's event_timestamp (point-in-time join).

    Args:
        store: the source's store.
        service: name of the feature service.
        entities: the entity's id and event_timestamp (naive UTC), the entity rows.

    Returns:
        One row per row of `entities`, in any order: id, event_timestamp and the features.

    Raises:
        SchemaError: the join lost or doubled rows.
    """
    as_of = (entities["event_timestamp"] - pd.Timestamp(0)).dt.total_seconds()
    frame = entities.assign(as_of=as_of)
    with _without_advice():
        found = store.get_historical_features(entity_df=frame, features=store.get_feature_service(service))
        table = found.to_arrow()
    if table.num_rows != len(entities):
        raise SchemaError(
            f"the point-in-time join of {service} returned {table.num_rows:,} rows for {len(entities):,} "
            "entities; build the feature rows again"
        )
    return table


def historical_sql(store: "FeatureStore", service: str, entities: str) -> str:
    """The point-in-time join of a service for DuckDB, without the features that Feast computes on demand.

    Args:
        store: the source's store.
        service: name of the feature service.
        entities: SQL that gives the entity rows: the entity's id, event_timestamp (naive UTC) and any other columns.

    Returns:
        SQL that gives one row per entity row, with its columns and the features; run it where `entities` can be.
    """
    with _without_advice():
        return store.get_historical_features(entity_df=entities, features=stored(store, service)).to_sql()


@contextmanager
def _without_advice() -> Iterator[None]:
    """Feast and its Ibis warn of each other's old names, and Feast switches such warnings on for everybody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def stored(store: "FeatureStore", service: str) -> list[str]:
    """The features of a service that the online store keeps, as `online` takes them.

    Those that are computed on demand are left out: Feast takes 5 ms for what
    `features.views.request_context` does in none.
    """
    on_demand = {view.name for view in store.list_on_demand_feature_views()}
    views = store.get_feature_service(service).feature_view_projections
    return [
        f"{view.name}:{field.name}" for view in views if view.name not in on_demand for field in view.features
    ]


def online(
    store: "FeatureStore", features: "FeatureService | list[str]", entities: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """The latest features of entities from the online store.

    Args:
        store: the source's store.
        features: the feature service, from `store.get_feature_service`, or what `stored` returned; keep it, it is
            slow to get.
        entities: per row the entity's id and, for a service, "as_of", seconds since 1970 of the request.

    Returns:
        Feature name -> one value per entity; None where nothing is known.
    """
    rows = [dict(entity) for entity in entities]
    found = store.get_online_features(features=features, entity_rows=rows)
    return found.to_dict()
