"""An examples folder in memory: rows as columns, histories padded, texts as a list."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.errors import DataError, SchemaError
from expectations.contracts.examples import FUTURES, HISTORIES, ROWS, TEXTS, ExampleSchema
from training.futures import Futures, read_futures
from training.split import parts

HISTORY_FEATURES = ("events", "amounts", "days_ago", "polarities")
POLARITY = HISTORY_FEATURES.index("polarities")


@dataclass(frozen=True, kw_only=True)
class Histories:
    """What shoppers did and said before a moment, padded.

    Attributes:
        text_ids: (histories, H) int64; -1 where there is nothing.
        features: (histories, H, 4) float32: events, amount, days ago, polarity; 0 where there is nothing.
    """

    text_ids: np.ndarray
    features: np.ndarray

    def turned_to(self, chosen: np.ndarray) -> np.ndarray:
        """Text ids of what was neither liked nor disliked but done, of some histories, (chosen, H); else -1."""
        return np.where(self.features[chosen, :, POLARITY] == 0, self.text_ids[chosen], -1)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows, histories and texts of one examples folder.

    Attributes:
        schema: the folder's schema.
        rows: one row per exposure, the schema's numeric columns as float32.
        part: (rows,) "train", "validation" or "test".
        histories: by `history_id`.
        texts: by `text_id`.
        futures: for learning without labels; None where the folder has none.
    """

    schema: ExampleSchema
    rows: pd.DataFrame
    part: np.ndarray
    histories: Histories
    texts: list[str]
    futures: Futures | None = None

    @property
    def labels(self) -> np.ndarray:
        """(rows,) float32: 1 where the shopper answered."""
        return self.rows["label"].to_numpy(np.float32)


def read_examples(folder: Path) -> Examples:
    """Read an examples folder.

    Raises:
        SchemaError: a file or a column is missing or unreadable.
        DataError: no rows, a label that is not 0 or 1, an id outside its table.
    """
    schema = ExampleSchema.read(folder)
    rows = _read(folder / ROWS).to_pandas()
    needed = (
        "user_id",
        "item_id",
        "event_timestamp",
        "list_id",
        "label",
        "text_id",
        "query_id",
        "history_id",
    )
    _require(folder / ROWS, rows, (*needed, *schema.numeric, *schema.categorical))
    for column in (schema.popularity, schema.activity):
        _require(folder / ROWS, rows, (column,))
    texts = [text or "" for text in _read(folder / TEXTS).column("text").to_pylist()]
    histories = pad_histories(_read(folder / HISTORIES))
    _check_rows(folder / ROWS, rows, len(texts), len(histories.text_ids))
    if histories.text_ids.size and histories.text_ids.max() >= len(texts):
        raise DataError(
            f"{folder / HISTORIES}: text_ids beyond the {len(texts)} texts; build the examples again"
        )
    part = parts(rows["event_timestamp"].to_numpy(), schema)
    futures = read_futures(folder / FUTURES, num_texts=len(texts), num_histories=len(histories.text_ids))
    return Examples(schema=schema, rows=rows, part=part, histories=histories, texts=texts, futures=futures)


def pad_histories(table: pa.Table) -> Histories:
    """Histories as arrays of one width, the longest history's (at least 1)."""
    lists = table.column("text_ids").combine_chunks()
    lengths = np.nan_to_num(np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=float))
    lengths = lengths.astype(np.int64)
    width = max(1, int(lengths.max(initial=0)))
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    text_ids = np.full((len(lengths), width), -1, dtype=np.int64)
    text_ids[row, place] = lists.flatten().to_numpy(zero_copy_only=False)
    features = np.zeros((len(lengths), width, len(HISTORY_FEATURES)), dtype=np.float32)
    for index, name in enumerate(HISTORY_FEATURES):
        if name not in table.column_names:
            continue
        values = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        features[row, place, index] = np.nan_to_num(values)
    return Histories(text_ids=text_ids, features=features)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise SchemaError(f"{path} does not exist; build the examples first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{path} cannot be read ({error}); build the examples again") from error


def _require(path: Path, rows: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in rows.columns]
    if missing:
        raise SchemaError(f"{path}: column {missing[0]} is missing; build the examples again")


def _check_rows(path: Path, rows: pd.DataFrame, num_texts: int, num_histories: int) -> None:
    if rows.empty:
        raise DataError(f"{path}: no rows; land exposures with known outcomes first")
    bad = ~rows["label"].isin((0, 1))
    if bad.any():
        raise DataError(
            f"{path}: {int(bad.sum())} rows have a label that is neither 0 nor 1; build them again"
        )
    limits = (("text_id", 0, num_texts), ("query_id", -1, num_texts), ("history_id", 0, num_histories))
    for column, low, high in limits:
        outside = (rows[column] < low) | (rows[column] >= high)
        if outside.any():
            raise DataError(
                f"{path}: {int(outside.sum())} rows have a {column} outside {low}..{high - 1}; "
                "build them again"
            )
