"""Training examples: exposures joined, point in time, with everything known before them.

User and candidate features come from Feast for each distinct (user_id, event_timestamp) and
(item_id, event_timestamp),
so a user's history is fetched once for all that was shown at once. The user–item features and
the final join run in DuckDB.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from ibis import _
from ibis.backends import BaseBackend
from ibis.expr.types import Table as IbisTable

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    NEXT_INTERACTIONS,
    ROW_SCHEMA,
    ROWS,
    TEXTS,
    ExampleSchema,
)
from expectations.contracts.source import Source
from expectations.storage.datasets import land
from expectations.storage.hashes import fingerprint
from features.offline.feature_rows import CODE_VERSION, open_engine, write_table
from features.offline.interaction_history import (
    numbered_next_interactions,
    write_interaction_histories,
    write_next_interactions,
)
from features.store.client import historical
from features.views import feature_schema
from features.views.feature_schema import join_texts, query_text, text_columns, text_table
from features.views.shop import Shop, read_shop
from features.views.user_item import USER_ITEM_FEATURES, history_keys, unnest_items, user_item_features
from features.views.windows import EVENT_TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore


def build_examples(
    source: Source,
    checked: Mapping[str, Path],
    feature_rows: Path,
    dataset: Path,
    store: "FeatureStore",
    horizon: Any,
) -> tuple[dict[str, Any], bool]:
    """Join the exposures with their features and land them as an examples folder.

    Args:
        source: the shop.
        checked: table name -> folder of the checked version.
        feature_rows: folder of the feature rows version that is applied to the store.
        dataset: where to land; a version is a folder of `expectations.contracts.examples`.
        store: the source's Feast store.
        horizon: the time up to which the data reach.

    Returns:
        The pointer (rows, positives, texts, interaction histories) and whether anything was computed.
    """
    version = fingerprint(
        "examples", CODE_VERSION, feature_rows.name, str(source.test_from), source.validation_fraction
    )
    write = partial(_write, source, checked, feature_rows, store, horizon, version)
    return land(dataset, version, write)


def _write(
    source: Source,
    checked: Mapping[str, Path],
    feature_rows: Path,
    store: "FeatureStore",
    horizon: Any,
    version: str,
    folder: Path,
) -> dict[str, Any]:
    connection = open_engine()
    shop = read_shop(connection, checked, source.contracts())
    connection.create_table("labelled_exposures", _labelled_exposures(shop, source), temp=True)
    exposures = connection.table("labelled_exposures")
    users = _retrieve_features(connection, store, feature_schema.USER_SERVICE, exposures, "user_id")
    candidates = _retrieve_features(connection, store, feature_schema.CANDIDATE_SERVICE, exposures, "item_id")
    connection.create_table("numbered", _number(exposures, users, candidates), temp=True)
    numbered = connection.table("numbered")
    user_item = _user_item(connection, numbered, users, feature_rows)
    catalogue = connection.read_parquet(str(feature_rows / "catalogue.parquet"))
    next_windows = numbered_next_interactions(connection, shop, source, horizon)
    interaction_texts = ibis.union(
        *(
            table.select(text=_[column].unnest())
            for table in (users, next_windows)
            for column in ("topics", "feedback_texts")
        ),
        next_windows.select(text=_.next_topics.unnest()),
    )
    texts = connection.create_table("texts", text_table(catalogue, numbered, interaction_texts), temp=True)
    features = feature_schema.describe(source, users.schema(), candidates.schema())
    rows = _rows(numbered, user_item, users, candidates, catalogue, texts, features)
    counts = {
        "texts": write_table(connection, texts.order_by("text_id"), folder / TEXTS),
        "interaction_histories": write_interaction_histories(
            connection, users, next_windows, texts, folder / INTERACTION_HISTORIES
        ),
        "next_interactions": write_next_interactions(
            connection, next_windows, texts, folder / NEXT_INTERACTIONS
        ),
        "rows": write_table(connection, rows.order_by(EVENT_TIMESTAMP, "exposure_id"), folder / ROWS),
    }
    labels = pq.read_table(folder / ROWS, columns=["label"]).column("label")
    counts["positives"] = pa.compute.sum(labels).as_py() or 0
    ExampleSchema(
        source=source.name,
        fingerprint=version,
        feature_service=f"{feature_schema.USER_SERVICE}+{feature_schema.CANDIDATE_SERVICE}",
        numeric=features.numeric,
        categorical=features.categorical,
        popularity="item_popularity",
        activity="user_num_events",
        slices=features.slices,
        test_from=source.test_from,
        validation_fraction=source.validation_fraction,
        horizon=horizon,
    ).write(folder)
    return counts


def _labelled_exposures(shop: Shop, source: Source) -> IbisTable:
    """One row per exposure whose outcome is known, with its context and its query."""
    known = shop.exposures.filter(_.outcome.notnull())
    extras = source.contracts()["exposures"].extras
    user_text = shop.users.select(
        "user_id", user_text=join_texts(text_columns(source.contracts()["users"].extras))
    )
    return (
        known.left_join(user_text, "user_id")
        .drop("user_id_right")
        .mutate(query=query_text(extras))
        .select(
            "exposure_id",
            "user_id",
            "item_id",
            "scenario",
            EVENT_TIMESTAMP,
            "query",
            label=_.outcome.cast("float32"),
            weight=ibis.literal(1.0, "float32"),
            **feature_schema.context_columns(extras),
        )
    )


def _retrieve_features(
    connection: BaseBackend, store: "FeatureStore", service: str, exposures: IbisTable, key: str
) -> IbisTable:
    """The service's features for each distinct (entity, event_timestamp), numbered from 0."""
    entities = exposures.select(key, EVENT_TIMESTAMP).distinct().order_by(EVENT_TIMESTAMP, key).execute()
    found = historical(store, service, entities)
    timestamps = found.column(EVENT_TIMESTAMP).cast(pa.timestamp("us"))
    found = found.set_column(
        found.schema.get_field_index(EVENT_TIMESTAMP), EVENT_TIMESTAMP, timestamps
    ).drop_columns(["as_of"])
    found = found.sort_by([(EVENT_TIMESTAMP, "ascending"), (key, "ascending")])
    found = found.append_column("entity_row", pa.array(range(found.num_rows), pa.int32()))
    connection.con.register(f"retrieved_{service}", found)  # type: ignore[attr-defined]
    return connection.table(f"retrieved_{service}")


def _number(exposures: IbisTable, users: IbisTable, candidates: IbisTable) -> IbisTable:
    """Exposures with the row numbers of their shopper's and their candidate's features."""
    of_user = users.select("user_id", EVENT_TIMESTAMP, history_id="entity_row")
    of_candidate = candidates.select("item_id", EVENT_TIMESTAMP, candidate_row="entity_row")
    joined = exposures.join(of_user, ["user_id", EVENT_TIMESTAMP]).join(
        of_candidate, ["item_id", EVENT_TIMESTAMP]
    )
    groups = ibis.window(order_by=["history_id", "scenario", "query"])
    order = ibis.window(order_by=[EVENT_TIMESTAMP, "exposure_id"])
    return joined.mutate(
        query_group_id=ibis.dense_rank().over(groups).cast("int64"),
        pair_id=ibis.row_number().over(order).cast("int64"),
    )


def _user_item(
    connection: BaseBackend, numbered: IbisTable, users: IbisTable, feature_rows: Path
) -> IbisTable:
    items = connection.create_table(
        "history_items", unnest_items(users.mutate(history_id=_.entity_row)), temp=True
    )
    covered = connection.read_parquet(str(feature_rows / "item_keys.parquet"))
    wanted = connection.read_parquet(str(feature_rows / "levels.parquet")).semi_join(
        covered, ["level", "key"]
    )
    expression = user_item_features(
        numbered.select("pair_id", "history_id", "item_id"),
        history_keys=connection.create_table("history_keys", history_keys(items, wanted), temp=True),
        item_keys=covered,
    )
    return connection.create_table("user_item", expression, temp=True)


def _rows(
    numbered: IbisTable,
    user_item: IbisTable,
    users: IbisTable,
    candidates: IbisTable,
    catalogue: IbisTable,
    texts: IbisTable,
    features: feature_schema.Features,
) -> IbisTable:
    of_user = users.select(history_id="entity_row", **_features(users, features))
    of_candidate = candidates.select(candidate_row="entity_row", **_features(candidates, features))
    ids = texts.select("text", "text_id")
    of_item = catalogue.select("item_id", text=_.text.fill_null("")).join(ids, "text").drop("text")
    queries = ids.select(query="text", query_id="text_id")
    joined = (
        numbered.join(user_item, "pair_id")
        .join(of_user, "history_id")
        .join(of_candidate, "candidate_row")
        .join(of_item, "item_id")
        .left_join(queries, "query")
    )
    return joined.select(
        *ROW_SCHEMA.names[: ROW_SCHEMA.names.index("query_id")],
        query_id=_.query_id.coalesce(-1).cast("int32"),
        history_id=_.history_id.cast("int32"),
        **{name: _[name].cast("float32") for name in features.numeric},
        **{name: _[name].cast("string") for name in features.categorical},
    )


def _features(table: IbisTable, features: feature_schema.Features) -> dict[str, str]:
    names = (*features.numeric, *features.categorical)
    return {name: name for name in names if name in table.columns and name not in USER_ITEM_FEATURES}
