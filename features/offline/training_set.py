"""Training examples: exposures joined, point in time, with everything known before them.

User and candidate features come from Feast's point-in-time join for each distinct (user_id, event_timestamp) and
(item_id, event_timestamp), so a user's history is fetched once for all that was shown at once. That join, the
user–item features and the final join run in one DuckDB whose memory is bounded.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow as pa
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
from expectations.contracts.shop_tables import COLD_START_USER
from expectations.contracts.source import Source
from expectations.errors import DataError, SchemaError
from expectations.storage.datasets import land
from expectations.storage.hashes import fingerprint
from expectations.suites.engine import within_memory
from features.offline.engine import (
    SCRATCH,
    bounded_engine,
    hashing_the_right_side,
    write_query,
    write_table,
)
from features.offline.feature_rows import CODE_VERSION
from features.offline.interaction_history import (
    numbered_next_interactions,
    write_interaction_histories,
    write_next_interactions,
)
from features.store.client import historical_sql, open_store
from features.views import feature_schema
from features.views.feature_schema import join_texts, query_text, text_columns, text_table
from features.views.request_context import calendar_features, clock_features
from features.views.shop import Shop, read_shop
from features.views.user_item import USER_ITEM_FEATURES, history_keys, unnest_items, user_item_features
from features.views.windows import EVENT_TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore


def build_examples(
    source: Source,
    checked: Mapping[str, Path],
    store: Path,
    dataset: Path,
    horizon: datetime,
    *,
    memory: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Join the exposures with their features and land them as an examples folder.

    Args:
        source: the shop.
        checked: table name -> folder of the checked version.
        store: folder of a version of the source's Feast store, the feature rows in it.
        dataset: where to land; a version is a folder of `expectations.contracts.examples`.
        horizon: the time up to which the data reach, naive UTC.
        memory: what the join may use, such as "6GB".

    Returns:
        The pointer (rows, positives, texts, interaction histories) and whether anything was computed.

    Raises:
        DataError: no exposure has an outcome that is known at the horizon.
        SettingError: the join fits neither in memory nor on the disk.
    """
    split = (str(source.test_from), source.validation_fraction, source.split_by)
    version = fingerprint("examples", CODE_VERSION, store.name, *split)
    write = partial(_write, source, checked, store, horizon, memory, version)
    return land(dataset, version, write)


def _write(
    source: Source,
    checked: Mapping[str, Path],
    store: Path,
    horizon: datetime,
    memory: str | None,
    version: str,
    folder: Path,
) -> dict[str, Any]:
    with bounded_engine(memory, folder / SCRATCH) as connection:
        shop = read_shop(connection, checked, source)
        connection.create_table("labelled_exposures", _labelled_exposures(shop, source, horizon), temp=True)
        exposures = connection.table("labelled_exposures")
        count, num_positions = (
            exposures.aggregate(count=_.count(), positions=_.context_position.count()).execute().iloc[0]
        )
        if not count:
            raise DataError(
                f"exposures: none of {int(shop.exposures.count().execute()):,} has an outcome that is known at "
                f"{horizon:%Y-%m-%d}; bring outcomes, or shorten [outcome_window] in source.toml"
            )
        with within_memory("exposures", f"{int(count):,} exposures", memory):
            return _join(connection, shop, source, store, horizon, version, folder, num_positions > 0)


def _join(
    connection: BaseBackend,
    shop: Shop,
    source: Source,
    store: Path,
    horizon: datetime,
    version: str,
    folder: Path,
    with_position: bool,
) -> dict[str, Any]:
    exposures, opened = connection.table("labelled_exposures"), open_store(store)
    users = _retrieve_features(connection, opened, feature_schema.USER_SERVICE, exposures, folder)
    candidates = _retrieve_features(connection, opened, feature_schema.CANDIDATE_SERVICE, exposures, folder)
    connection.create_table("numbered", _number(exposures, users, candidates), temp=True)
    numbered = connection.table("numbered")
    user_item = _user_item(connection, numbered, users, store)
    catalogue = connection.read_parquet(str(store / "catalogue.parquet"))
    next_windows = numbered_next_interactions(connection, shop, source, horizon, int(users.count().execute()))
    interaction_texts = ibis.union(
        *(
            table.select(text=_[column].unnest())
            for table in (users, next_windows)
            for column in ("topics", "feedback_texts")
        ),
        next_windows.select(text=_.next_topics.unnest()),
    )
    texts = connection.create_table("texts", text_table(catalogue, numbered, interaction_texts), temp=True)
    features = feature_schema.describe(
        source, users.schema(), candidates.schema(), with_position=with_position
    )
    rows = _rows(numbered, user_item, users, candidates, catalogue, texts, features)
    counts: dict[str, Any] = {
        "texts": write_table(connection, texts.order_by("text_id"), folder / TEXTS),
        "interaction_histories": write_interaction_histories(
            connection, users, next_windows, texts, folder / INTERACTION_HISTORIES
        ),
        "next_interactions": write_next_interactions(
            connection, next_windows, texts, folder / NEXT_INTERACTIONS
        ),
        "rows": write_table(connection, rows.order_by(EVENT_TIMESTAMP, "exposure_id"), folder / ROWS),
        "positives": float((numbered.label * numbered.weight).sum().execute()),
    }
    with_events = bool(shop.events.item_id.count().execute())
    ExampleSchema(
        source=source.name,
        fingerprint=version,
        feature_service=f"{feature_schema.USER_SERVICE}+{feature_schema.CANDIDATE_SERVICE}",
        numeric=features.numeric,
        categorical=features.categorical,
        popularity="item_popularity" if with_events else "item_outcome_lift",
        activity="user_num_events",
        slices=features.slices,
        test_from=source.test_from,
        validation_fraction=source.validation_fraction,
        horizon=horizon,
        split_by=source.split_by,
        position=feature_schema.POSITION if with_position else None,
    ).write(folder)
    return counts


def _labelled_exposures(shop: Shop, source: Source, horizon: datetime) -> IbisTable:
    """One row per exposure whose outcome is known at the horizon, with its context and its query."""
    known = shop.exposures.filter(
        _.label.notnull() & (_.closes_at <= ibis.literal(horizon).cast("timestamp"))
    )
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
            "request_id",
            "query",
            "label",
            "weight",
            **{feature_schema.POSITION: _.position.cast("float64")},
            **feature_schema.context_columns(extras),
        )
    )


def _retrieve_features(
    connection: BaseBackend, store: "FeatureStore", service: str, exposures: IbisTable, folder: Path
) -> IbisTable:
    """The service's features for each distinct (entity, event_timestamp), numbered from 0 as entity_row.

    Raises:
        SchemaError: the point-in-time join lost or doubled rows.
    """
    key = {feature_schema.USER_SERVICE: "user_id", feature_schema.CANDIDATE_SERVICE: "item_id"}[service]
    order = ibis.window(order_by=[EVENT_TIMESTAMP, key])
    entities = exposures.select(key, EVENT_TIMESTAMP).distinct()
    entities = entities.mutate(entity_row=ibis.row_number().over(order).cast("int32"))
    connection.create_table(f"entities_{service}", entities, temp=True)
    join = historical_sql(store, service, f"SELECT * FROM entities_{service}")  # noqa: S608 — a constant
    path = folder / SCRATCH / f"{service}.parquet"
    found = write_query(connection, join, path)
    expected = int(connection.table(f"entities_{service}").count().execute())
    if found != expected:
        raise SchemaError(
            f"the point-in-time join of {service} returned {found:,} rows for {expected:,} entity rows; "
            "build the feature rows again"
        )
    joined = connection.read_parquet(str(path))
    return joined.join(_on_demand(connection, joined, service), "entity_row")


def _on_demand(connection: BaseBackend, joined: IbisTable, service: str) -> IbisTable:
    """The features of the clock (of users) or of the calendar (of candidates), by the code that serves them."""
    as_of = joined.select("entity_row", as_of=_[EVENT_TIMESTAMP].epoch_seconds().cast("float64"))
    if service == feature_schema.CANDIDATE_SERVICE:
        validity = joined.select("entity_row", "item_valid_from", "item_valid_until")
        known = connection.to_pyarrow(as_of.join(validity, "entity_row"))
        computed = calendar_features(
            *(known[name].to_numpy() for name in ("as_of", "item_valid_from", "item_valid_until"))
        )
    else:
        known = connection.to_pyarrow(as_of)
        computed = clock_features(known["as_of"].to_numpy())
    name = f"on_demand_{service}"
    connection.con.register(  # type: ignore[attr-defined]
        name, pa.table({"entity_row": known["entity_row"], **computed})
    )
    return connection.table(name)


def _number(exposures: IbisTable, users: IbisTable, candidates: IbisTable) -> IbisTable:
    """Exposures with the row numbers of their shopper's and their candidate's features, and their query group.

    Shown together are the exposures of one request_id; without one, those of the same shopper, scenario, query and
    event_timestamp. Of anonymous readers with neither request nor query, nobody knows: each is alone.
    """
    of_user = users.select("user_id", EVENT_TIMESTAMP, history_id="entity_row")
    of_candidate = candidates.select("item_id", EVENT_TIMESTAMP, candidate_row="entity_row")
    joined = exposures.join(of_user, ["user_id", EVENT_TIMESTAMP]).join(
        of_candidate, ["item_id", EVENT_TIMESTAMP]
    )
    alone = {
        name: ibis.ifelse(_.request_id.isnull(), _[name], None)
        for name in ("history_id", "scenario", "query")
    }
    unknown = _.request_id.isnull() & _["query"].isnull() & (_.user_id == COLD_START_USER)
    alone["exposure_id"] = ibis.ifelse(unknown, _.exposure_id, None)
    groups = ibis.window(order_by=["request_id", *alone.values()])
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
    keys = covered.select("level", "key").distinct()
    keys = connection.create_table(
        "keys", keys.mutate(number=ibis.row_number().cast("int32")), temp=True
    )  # joined once as words, then as numbers
    covered, wanted = (
        connection.create_table(
            name, table.join(keys, ["level", "key"]).drop("key").rename(key="number"), temp=True
        )
        for name, table in (
            ("numbered_item_keys", covered),
            ("numbered_levels", connection.read_parquet(str(feature_rows / "levels.parquet"))),
        )
    )
    expression = user_item_features(
        numbered.select("pair_id", "history_id", "item_id"),
        history_keys=connection.create_table("history_keys", history_keys(items, wanted), temp=True),
        item_keys=covered,
    )
    with hashing_the_right_side(connection):
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
    anonymous = joined.mutate(user_id=ibis.ifelse(_.user_id == COLD_START_USER, "", _.user_id))
    return anonymous.select(
        *ROW_SCHEMA.names[: ROW_SCHEMA.names.index("label")],
        label=_.label.cast("float32"),
        weight=_.weight.cast("float32"),
        text_id="text_id",
        query_id=_.query_id.coalesce(-1).cast("int32"),
        history_id=_.history_id.cast("int32"),
        **{name: _[name].cast("float32") for name in features.numeric},
        **{name: _[name].cast("string") for name in features.categorical},
    )


def _features(table: IbisTable, features: feature_schema.Features) -> dict[str, str]:
    names = (*features.numeric, *features.categorical)
    return {name: name for name in names if name in table.columns and name not in USER_ITEM_FEATURES}
