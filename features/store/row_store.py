"""Feast's online store in SQLite with one row an entity and view, in place of one a feature.

Feast's own writes 600,000 rows, their text beside each value, for 20,000 items of 30 features. The values of an
entity are read together always, so here they lie together, as one message of Feast's own format.

A file is filled once and only read afterwards: the views of a file never change their features.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast import Entity, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.repo_config import FeastConfigBaseModel
from pydantic import StrictStr

from expectations.suites.rules import quoted

TYPE = f"{__name__}.RowOnlineStore"

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Found = tuple[datetime | None, dict[str, Value] | None]


class RowOnlineStoreConfig(FeastConfigBaseModel):
    """Where the file is, from the repo's folder."""

    type: StrictStr = TYPE
    path: StrictStr = "online.db"


class RowOnlineStore(OnlineStore):
    """A table for each feature view: entity_key, microseconds since 1970, the values in the view's order."""

    def __init__(self) -> None:
        super().__init__()
        self._reader: sqlite3.Connection | None = None

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],  # noqa: ARG002 — Feast's signature
        entities_to_keep: Sequence[Entity],  # noqa: ARG002
        partial: bool,  # noqa: ARG002
    ) -> None:
        """Make the tables of views, and drop those of views that are gone."""
        with _writer(config) as connection:
            for view in tables_to_delete:
                connection.execute(f"DROP TABLE IF EXISTS {quoted(view.name)}")
            for view in tables_to_keep:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {quoted(view.name)} "
                    "(entity_key BLOB PRIMARY KEY, event_timestamp INTEGER NOT NULL, features BLOB NOT NULL) "
                    "WITHOUT ROWID"
                )

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write entities, in one transaction."""
        names = [field.name for field in table.features]
        rows = (
            (_key(config, key), _microseconds(when), _message(values, names)) for key, values, when, _ in data
        )
        with _writer(config) as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO {quoted(table.name)} VALUES (?, ?, ?)",  # noqa: S608
                rows,
            )
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,  # noqa: ARG002 — Feast picks them
    ) -> list[Found]:
        """Of each entity the time and the values, or twice None."""
        names = [field.name for field in table.features]
        query = f"SELECT event_timestamp, features FROM {quoted(table.name)} WHERE entity_key = ?"  # noqa: S608
        connection = self._connected(config)
        rows = [connection.execute(query, (_key(config, key),)).fetchone() for key in entity_keys]
        return [(None, None) if row is None else (_time(row[0]), _values(row[1], names)) for row in rows]

    def teardown(
        self,
        config: RepoConfig,
        tables: Sequence[FeatureView],  # noqa: ARG002
        entities: Sequence[Entity],  # noqa: ARG002
    ) -> None:
        """Remove the file."""
        if self._reader:
            self._reader.close()
            self._reader = None
        _path(config).unlink(missing_ok=True)

    def _connected(self, config: RepoConfig) -> sqlite3.Connection:
        """One connection for all reads; the caller lets one thread at a time read."""
        if self._reader is None:
            address = f"{_path(config).absolute().as_uri()}?mode=ro"
            self._reader = sqlite3.connect(address, uri=True, check_same_thread=False)
        return self._reader


@contextmanager
def _writer(config: RepoConfig) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(_path(config))
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def _path(config: RepoConfig) -> Path:
    return Path(config.repo_path or ".") / config.online_store.path


def _key(config: RepoConfig, key: EntityKey) -> bytes:
    return serialize_entity_key(key, config.entity_key_serialization_version)


def _message(values: dict[str, Value], names: Sequence[str]) -> bytes:
    return bytes(RepeatedValue(val=[values[name] for name in names]).SerializeToString())


def _values(message: bytes, names: Sequence[str]) -> dict[str, Value]:
    return dict(zip(names, RepeatedValue.FromString(message).val, strict=True))


def _microseconds(when: datetime) -> int:
    """Feast's times are naive UTC or have a zone."""
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e6)


def _time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)
