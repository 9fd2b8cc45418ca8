"""The Feast store of a source, read point in time or online."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from expectations.contracts.schema import ColumnType
from expectations.errors import SchemaError

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore


def open_store(folder: Path) -> "FeatureStore":
    """The Feast store of a folder that `features.store.build` has filled.

    Raises:
        SchemaError: there is none.
    """
    from feast import FeatureStore

    # Feast's import switches deprecation warnings on for everybody; this one is Ibis's, about DuckDB
    warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
    if not (folder / "feature_store.yaml").exists():
        raise SchemaError(f"{folder} is no Feast store; fill it from the feature rows first")
    return FeatureStore(repo_path=str(folder))


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
    with without_advice():
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
    with without_advice():
        return store.get_historical_features(entity_df=entities, features=stored(store, service)).to_sql()


@contextmanager
def without_advice() -> Iterator[None]:
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


def stored_types(store: "FeatureStore", service: str) -> dict[str, ColumnType]:
    """Feature name -> number or string, of those that `stored` names; lists are left out."""
    from feast.types import Float64, String

    kinds: dict[Any, ColumnType] = {Float64: "number", String: "string"}
    names = {name.partition(":")[2] for name in stored(store, service)}
    views = store.get_feature_service(service).feature_view_projections
    return {
        field.name: kinds[field.dtype]
        for view in views
        for field in view.features
        if field.name in names and field.dtype in kinds
    }


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
