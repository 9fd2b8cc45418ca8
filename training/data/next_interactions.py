"""Next interactions: what users did in the window after a timestamp, for pretraining without labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expectations.contracts.examples import NEXT_INTERACTION_SCHEMA, NEXT_WINDOW_DAYS
from expectations.errors import DataError, SchemaError


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


def _numbers(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False).astype(np.int64)
