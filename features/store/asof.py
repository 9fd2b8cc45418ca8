"""Feast's DuckDB offline store with an as-of join that is one sort, whatever the number of earlier rows.

Feast's own joins each entity row with every earlier feature row of its entity before it takes the newest:
41,188 rows of one item are 848 million pairs. Here DuckDB's ASOF join finds the timestamp of the newest row over
narrow columns, and a hash join, which can spill, fetches that row's features.

The job's SQL can be run elsewhere (`to_sql`): an examples build runs it in its own bounded engine, with entity rows
that are a table there.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from pydantic import StrictStr

from expectations.suites.rules import literal, quoted

TYPE = f"{__name__}.AsOfOfflineStore"
_ENTITIES = "entity_frame"


class AsOfOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """DuckDB's settings under this store's name."""

    type: StrictStr = TYPE


class AsOfOfflineStore(DuckDBOfflineStore):
    """Point-in-time joins of feature views without expiry and with one row per entity and event_timestamp."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,  # noqa: ARG004 — Feast's signature
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Each entity's newest row between two dates."""
        rows, when = _rows(config, data_source), quoted(timestamp_field)
        keys = ", ".join(map(quoted, join_key_columns))
        columns = ", ".join(map(quoted, (*join_key_columns, *feature_name_columns, timestamp_field)))
        first, last = (literal(f"{_naive_utc(date):%Y-%m-%d %H:%M:%S.%f}") for date in (start_date, end_date))
        sql = (
            f"SELECT {columns} FROM {rows} JOIN (SELECT {keys}, max({when}) AS {when} FROM {rows} "  # noqa: S608
            f"WHERE {when} BETWEEN TIMESTAMP {first} AND TIMESTAMP {last} GROUP BY ALL) USING ({keys}, {when})"
        )
        return AsOfRetrievalJob(sql)

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: ARG004 — names stay short
        filter_by_created_timestamp: bool = False,  # noqa: ARG004 — no view has such a column
    ) -> RetrievalJob:
        """The features of entity rows as of their event_timestamp: a frame, or SQL that gives naive UTC timestamps."""
        assert entity_df is not None, "give entity rows"
        frame = None if isinstance(entity_df, str) else _naive(entity_df)
        entities = entity_df if isinstance(entity_df, str) else f"SELECT * FROM {_ENTITIES}"  # noqa: S608
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        sql = _as_of_sql(config, entities, feature_views, feature_refs)
        return AsOfRetrievalJob(sql, frame, on_demand, feature_refs)


class AsOfRetrievalJob(RetrievalJob):
    """A point-in-time join as SQL, and the frame of entity rows that it reads, if it does."""

    def __init__(
        self,
        sql: str,
        frame: pd.DataFrame | None = None,
        on_demand: Sequence[OnDemandFeatureView] = (),
        feature_refs: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._sql, self._frame, self._on_demand, self._feature_refs = (
            sql,
            frame,
            list(on_demand),
            feature_refs,
        )

    def to_sql(self) -> str:
        """The join for DuckDB, without on-demand features."""
        return self._sql

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        with duckdb.connect(config={"temp_directory": ""}) as connection:  # nothing in the current folder
            if self._frame is not None:
                connection.register(_ENTITIES, self._frame)
            return connection.sql(self._sql).to_arrow_table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named by their view: never."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the joined rows."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """Which features were asked for."""
        keys = [] if self._frame is None else [str(name) for name in self._frame.columns]
        return RetrievalMetadata(features=list(self._feature_refs), keys=keys)


def _naive_utc(date: datetime) -> datetime:
    return date.astimezone(UTC).replace(tzinfo=None)


def _naive(frame: pd.DataFrame) -> pd.DataFrame:
    timestamps = pd.to_datetime(frame["event_timestamp"], utc=True).dt.tz_localize(None)
    return frame.assign(event_timestamp=timestamps.astype("datetime64[us]"))


def _rows(config: RepoConfig, source: Any) -> str:
    """The file of a view's rows as a table; its path begins at the repo's folder."""
    return f"read_parquet({literal(str(Path(config.repo_path or '.').absolute() / source.path))})"


def _as_of_sql(
    config: RepoConfig, entities: str, views: Sequence[FeatureView], feature_refs: Sequence[str]
) -> str:
    """Entity rows with the features of each view's newest row at or before their event_timestamp."""
    found, joins, columns = "", "", ""
    for number, view in enumerate(views):
        source: Any = view.batch_source
        rows, (key,) = _rows(config, source), map(quoted, view.join_keys)
        when, name = quoted(source.timestamp_field), view.projection.name_to_use()
        found += (
            f" ASOF LEFT JOIN (SELECT {key}, {when} AS found_{number} FROM {rows}) AS at_{number}"  # noqa: S608
            f" ON entity.{key} = at_{number}.{key} AND entity.event_timestamp >= at_{number}.found_{number}"
        )
        joins += (
            f" LEFT JOIN {rows} AS view_{number}"
            f" ON located.{key} = view_{number}.{key} AND located.found_{number} = view_{number}.{when}"
        )
        wanted = [ref.split(":", 1)[1] for ref in feature_refs if ref.startswith(f"{name}:")]
        columns += "".join(f", view_{number}.{quoted(feature)}" for feature in wanted)
    times = ", ".join(f"found_{number}" for number in range(len(views)))
    return (
        f"WITH entity AS ({entities}), located AS (SELECT entity.*, {times} FROM entity{found}) "  # noqa: S608
        f"SELECT located.* EXCLUDE ({times}){columns} FROM located{joins}"
    )
