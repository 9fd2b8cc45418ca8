"""Synthetic examples of any size, written by row groups."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    INTERACTION_HISTORY_SCHEMA,
    ROW_SCHEMA,
    ROWS,
    TEXT_SCHEMA,
    TEXTS,
)
from tests.training.synthetic import SCHEMA, SUBJECTS

GROUP_SIZE = 40  # rows of a query group
INTERACTIONS = 12  # of a history
CANDIDATES, TOPICS = 400, 800  # texts of each kind
WRITTEN = 200_000  # rows written at once
START, DAYS = np.datetime64("2020-01-01", "us"), 100
NUMERIC = (
    "user_events",
    "item_popularity",
    "user_item_visits",
    "user_item_amount",
    "user_item_days",
    "context_hour",
)


def write(folder: Path, size: int) -> Path:
    """An examples folder of so many exposures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    texts = [f"Coupon for {SUBJECTS[n % 4]}, offer {n}" for n in range(CANDIDATES)]
    texts += [f"{SUBJECTS[n % 4]} {n}" for n in range(TOPICS)]
    ids = pa.array(np.arange(len(texts)), pa.int32())
    pq.write_table(pa.table([ids, pa.array(texts)], schema=TEXT_SCHEMA), folder / TEXTS)
    num_histories = size // GROUP_SIZE
    with pq.ParquetWriter(folder / INTERACTION_HISTORIES, INTERACTION_HISTORY_SCHEMA) as writer:
        for first in range(0, num_histories, WRITTEN // GROUP_SIZE):
            last = min(first + WRITTEN // GROUP_SIZE, num_histories)
            writer.write_table(_histories(np.arange(first, last), rng))
    features = [(name, pa.float32()) for name in NUMERIC] + [
        (name, pa.string()) for name in SCHEMA.categorical
    ]
    schema = pa.schema([*ROW_SCHEMA, *features])
    with pq.ParquetWriter(folder / ROWS, schema) as writer:
        for first in range(0, size, WRITTEN):
            writer.write_table(_rows(np.arange(first, min(first + WRITTEN, size)), size, rng, schema))
    replace(
        SCHEMA,
        source="growth",
        fingerprint=str(size),
        numeric=NUMERIC,
        test_from=datetime(2020, 3, 20),
        validation_fraction=0.1,
    ).write(folder)
    return folder


def _histories(history: np.ndarray, rng: np.random.Generator) -> pa.Table:
    count = len(history) * INTERACTIONS
    offsets = pa.array(np.arange(0, count + 1, INTERACTIONS), pa.int32())
    interactions = (
        CANDIDATES + 4 * rng.integers(0, TOPICS // 4, (len(history), INTERACTIONS)) + history[:, None] % 4
    )
    columns = {
        "text_ids": interactions.ravel().astype(np.int32),
        "events": rng.integers(1, 9, count).astype(np.float32),
        "amounts": rng.gamma(2, 10, count).astype(np.float32),
        "days_ago": rng.integers(0, 180, count).astype(np.float32),
        "sentiments": np.zeros(count, dtype=np.float32),
    }
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}
    return pa.table({"history_id": pa.array(history, pa.int32()), **lists}, schema=INTERACTION_HISTORY_SCHEMA)


def _rows(row: np.ndarray, size: int, rng: np.random.Generator, schema: pa.Schema) -> pa.Table:
    query_group, count = row // GROUP_SIZE, len(row)
    item = rng.integers(0, CANDIDATES, count)
    fits = item % 4 == query_group % 4
    visits = rng.poisson(np.where(fits, 2.0, 0.3)).astype(np.float32)
    chance = 1 / (1 + np.exp(5.5 - 2.0 * fits - 0.4 * visits))
    day = query_group * DAYS // (size // GROUP_SIZE + 1)
    user = pa.array(query_group % max(size // 400, 1)).cast(pa.string())
    columns = {
        "exposure_id": pa.array(row).cast(pa.string()),
        "user_id": user,
        "item_id": pa.array(item).cast(pa.string()),
        "scenario": pa.array(["campaign"]).take(pa.array(np.zeros(count, np.int32))),
        "event_timestamp": START + day.astype("timedelta64[D]"),
        "query_group_id": query_group,
        "label": (rng.random(count) < chance).astype(np.float32),
        "weight": np.ones(count, dtype=np.float32),
        "text_id": item,
        "query_id": np.full(count, -1),
        "history_id": np.minimum(query_group, size // GROUP_SIZE - 1),
        "user_events": rng.poisson(20, count),
        "item_popularity": item + rng.random(count),
        "user_item_visits": visits,
        "user_item_amount": visits * rng.gamma(2, 5, count),
        "user_item_days": np.where(visits > 0, rng.integers(0, 90, count), np.nan),
        "context_hour": rng.integers(0, 24, count),
        "item_kind": pa.array(["coupon", "festival"]).take(pa.array(item % 2)),
        "context_channel": pa.array(["web", "mail", None]).take(pa.array(rng.integers(0, 3, count))),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type, safe=False) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
