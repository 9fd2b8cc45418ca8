"""What users did: histories as ragged lists on disk, padded only for those in use, and the interactions that followed.

Shapes: k histories, H entries of the longest of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expectations.contracts.examples import (
    INTERACTION_HISTORY_SCHEMA,
    NEXT_INTERACTION_SCHEMA,
    NEXT_WINDOW_DAYS,
)
from expectations.errors import DataError, RequestError, SchemaError
from training.data.disk_arrays import DiskArray

HISTORY_FEATURES = ("events", "amounts", "days_ago", "sentiments")
SENTIMENT = HISTORY_FEATURES.index("sentiments")
BLOCK = 1 << 13  # histories read at once


class InteractionHistories:
    """Histories by `history_id`, newest entries first.

    Args:
        path: the Parquet file.
        num_texts: text ids are below it.
        folder: where the arrays lie; None: the system's folder for temporary files.

    Raises:
        SchemaError: a column is missing or of another type. DataError: lists of different lengths in one row,
        a text id outside its table. TransientError: the disk is full.
    """

    def __init__(self, path: Path, *, num_texts: int, folder: Path | None = None) -> None:
        self._path = path
        self._text_ids = DiskArray(folder, np.int32)
        self._features = DiskArray(folder, np.float32, (len(HISTORY_FEATURES),))
        starts = [np.zeros(1, dtype=np.int64)]
        with pq.ParquetFile(path, pre_buffer=False) as file:
            there = file.schema_arrow.names
            names = ["text_ids", *HISTORY_FEATURES]
            missing = [name for name in names if name not in there]
            if missing:
                raise SchemaError(f"{path}: column {missing[0]} is missing; build the examples again")
            for block in file.iter_batches(batch_size=BLOCK, columns=names):
                starts.append(starts[-1][-1] + self._append(block, num_texts).cumsum())
        pa.default_memory_pool().release_unused()
        self.starts = np.concatenate(starts)
        self.longest = int(np.diff(self.starts).max(initial=0))

    def _append(self, block: pa.RecordBatch, num_texts: int) -> np.ndarray:
        text_ids, lengths = self._list(block, "text_ids")
        if len(text_ids) and not 0 <= text_ids.min() <= text_ids.max() < num_texts:
            raise DataError(f"{self._path}: text_ids outside 0..{num_texts - 1}; build the examples again")
        features = np.empty((len(text_ids), len(HISTORY_FEATURES)), dtype=np.float32)
        for place, name in enumerate(HISTORY_FEATURES):
            values, its_lengths = self._list(block, name)
            if not np.array_equal(its_lengths, lengths):
                raise DataError(
                    f"{self._path}: {name} and text_ids differ in length; build the examples again"
                )
            features[:, place] = finite_or_zero(values)
        self._text_ids.append(text_ids)
        self._features.append(features)
        return lengths

    def _list(self, block: pa.RecordBatch, name: str) -> tuple[np.ndarray, np.ndarray]:
        kind = INTERACTION_HISTORY_SCHEMA.field(name).type
        try:
            lists = block.column(name).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise SchemaError(
                f"{self._path}: column {name} holds {block.schema.field(name).type}, not {kind}; build the "
                "examples again"
            ) from None
        values = lists.flatten()
        values = values.fill_null(-1 if name == "text_ids" else 0)
        return values.to_numpy(zero_copy_only=False), lists.value_lengths().fill_null(0).to_numpy().astype(
            np.int64
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def padded(self, history_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Text ids (k, H) int64, -1 where there is nothing, and their HISTORY_FEATURES (k, H, 4), 0 there.

        H is the length of the longest of these histories, at least 1.
        """
        chosen = np.asarray(history_ids, dtype=np.int64)
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        steps = np.arange(max(1, int(lengths.max(initial=0))))
        there = steps < lengths[:, None]
        entries = (self.starts[chosen][:, None] + steps)[there]
        text_ids, features = np.full(there.shape, -1), np.zeros((*there.shape, 4), dtype=np.float32)
        text_ids[there], features[there] = self._text_ids.take(entries), self._features.take(entries)
        return text_ids, features

    def interactions(self, history_ids: np.ndarray) -> np.ndarray:
        """Text ids of interactions, which unlike feedback have no sentiment, (k, H); else -1."""
        text_ids, features = self.padded(history_ids)
        return np.where(features[:, :, SENTIMENT] == 0, text_ids, -1)

    def texts(self, history_ids: np.ndarray) -> np.ndarray:
        """Text ids of these histories, ascending, each once."""
        return _distinct_texts(lambda ids: self.padded(ids)[0], history_ids)

    def interaction_texts(self, history_ids: np.ndarray) -> np.ndarray:
        """Text ids that `interactions` names, ascending, each once."""
        return _distinct_texts(self.interactions, history_ids)

    @cached_property
    def text_ids(self) -> np.ndarray:
        """Text ids of all histories, padded, in memory: for the analysis of small data."""
        return self.padded(np.arange(len(self)))[0]

    @cached_property
    def features(self) -> np.ndarray:
        """Features of all histories, padded, in memory: for the analysis of small data."""
        return self.padded(np.arange(len(self)))[1]


@dataclass(frozen=True, kw_only=True)
class InteractionHistory:
    """One user's interactions and feedback before the request; may be empty.

    Attributes:
        texts: the texts.
        events: how often.
        amounts: shop currency.
        days_ago: days between the last time and the request.
        sentiments: -1 the worst, 1 the best, 0 unknown; left out where nothing was said at all.
    """

    texts: Sequence[str] = ()
    events: Sequence[float] = ()
    amounts: Sequence[float] = ()
    days_ago: Sequence[float] = ()
    sentiments: Sequence[float] = ()

    def __post_init__(self) -> None:
        if not self.sentiments:
            object.__setattr__(self, "sentiments", [0.0] * len(self.texts))
        lengths = {len(self.texts), *map(len, self._columns())}
        if len(lengths) != 1:
            raise RequestError(
                f"history: {len(self.texts)} texts, {len(self.events)} events, {len(self.amounts)} amounts, "
                f"{len(self.days_ago)} days_ago, {len(self.sentiments)} sentiments; give each entry all"
            )

    def _columns(self) -> tuple[Sequence[float], ...]:
        return self.events, self.amounts, self.days_ago, self.sentiments

    @property
    def features(self) -> np.ndarray:
        """(H, 4) float32, in the order of HISTORY_FEATURES; 0 where unknown."""
        return finite_or_zero(np.array(self._columns(), dtype=np.float32).T)


@dataclass(frozen=True, kw_only=True)
class NextInteractions:
    """The next interactions of each (user, timestamp): n windows.

    Attributes:
        history_id: (n,) interactions before the timestamp.
        event_timestamp: (n,) datetime64[us], when each window begins.
        text_ids: (n,) the texts of each window, lists.
    """

    history_id: np.ndarray
    event_timestamp: np.ndarray
    text_ids: pa.ListArray

    def ended_by(self, end: np.datetime64) -> np.ndarray:
        """Numbers of the windows that had ended by then: none of their days lies at or after `end`."""
        return np.flatnonzero(self.event_timestamp + np.timedelta64(NEXT_WINDOW_DAYS, "D") <= end)

    def texts_of(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Texts of the chosen windows and which of them (0 to len - 1) each belongs to."""
        lists = self.text_ids.take(pa.array(chosen))
        return _numbers(lists.flatten()), pc.list_parent_indices(lists).to_numpy()


def read_next_interactions(
    path: Path, *, num_texts: int, num_interaction_histories: int
) -> NextInteractions | None:
    """Read next interactions, or None where the examples have none.

    Raises:
        SchemaError: the file is unreadable or lacks a column.
        DataError: an id outside its table.
    """
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, columns=NEXT_INTERACTION_SCHEMA.names).combine_chunks()
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise SchemaError(f"{path} cannot be read ({error}); build the examples again") from error
    next_interactions = NextInteractions(
        history_id=_numbers(table.column("history_id")),
        event_timestamp=table.column("event_timestamp").to_numpy().astype("datetime64[us]"),
        text_ids=table.column("text_ids").combine_chunks(),
    )
    for name, ids, limit in (
        ("history_id", next_interactions.history_id, num_interaction_histories),
        ("text_ids", _numbers(next_interactions.text_ids.flatten()), num_texts),
    ):
        if len(ids) and (ids.min() < 0 or ids.max() >= limit):
            raise DataError(f"{path}: {name} outside 0..{limit - 1}; build the examples again")
    return next_interactions


def finite_or_zero(values: np.ndarray) -> np.ndarray:
    """Values with 0 for those that are no finite number."""
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _distinct_texts(read: Callable[[np.ndarray], np.ndarray], history_ids: np.ndarray) -> np.ndarray:
    blocks = np.array_split(history_ids, max(1, -(-len(history_ids) // BLOCK)))
    text_ids = np.unique(np.concatenate([np.unique(read(block)) for block in blocks]))
    return text_ids[text_ids >= 0]


def _numbers(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False).astype(np.int64)
