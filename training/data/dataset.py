"""An examples folder, opened: rows and interaction histories on disk; texts as a list."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    NEXT_INTERACTIONS,
    ROWS,
    TEXTS,
    ExampleSchema,
)
from expectations.errors import DataError, SchemaError
from training.data.columns import Columns
from training.data.interaction_history import InteractionHistories, NextInteractions, read_next_interactions
from training.data.split import one_part, split

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows, interaction histories and texts of one examples folder.

    Attributes:
        schema: the folder's schema.
        columns: of the rows, one row per exposure; on disk.
        part: (rows,) "train", "validation" or "test".
        interaction_histories: by `history_id`; on disk.
        texts: by `text_id`.
        next_interactions: for pretraining without labels; None where the folder has none.
    """

    schema: ExampleSchema
    columns: Columns
    part: "pd.Categorical[str]"
    interaction_histories: InteractionHistories
    texts: list[str]
    next_interactions: NextInteractions | None = None

    @property
    def labels(self) -> np.ndarray:
        """(rows,) float32: 1 for a positive."""
        return self.columns["label"].astype(np.float32)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """All columns but `exposure_id` as a frame, for analysis: numbers stay on disk, strings do not."""
        return pd.DataFrame(dict(self.columns.of(slice(None))), copy=False)


def read_examples(folder: Path, *, spool: Path | None = None, part: str | None = None) -> Examples:
    """Open an examples folder; its rows are read once, by row groups.

    Infinite features are unknown ones; a warning says how many there are.

    Args:
        folder: the examples folder.
        spool: where columns are kept while they are in use; None: the system's folder for temporary files.
        part: that all rows are of; None: the parts are as the schema says.

    Raises:
        SchemaError: a file or a column is missing or unreadable.
        DataError: no rows, a label that is not 0 or 1, an id outside its table.
        TransientError: no room for the columns.
    """
    schema = ExampleSchema.read(folder)
    for name, column in (("popularity", schema.popularity), ("activity", schema.activity)):
        if column not in schema.numeric:
            raise SchemaError(f"{folder}: the {name} column {column} is no numeric feature; name one that is")
    texts = [text or "" for text in _tried(pq.read_table, folder / TEXTS).column("text").to_pylist()]
    interaction_histories = _tried(
        InteractionHistories, folder / INTERACTION_HISTORIES, num_texts=len(texts), folder=spool
    )
    columns = _tried(
        Columns, folder / ROWS, numeric=schema.numeric, categorical=schema.categorical, folder=spool
    )
    _check(folder / ROWS, columns, len(texts), len(interaction_histories))
    parts = split(columns, texts, schema) if part is None else one_part(len(columns), part)
    next_interactions = read_next_interactions(
        folder / NEXT_INTERACTIONS, num_texts=len(texts), num_interaction_histories=len(interaction_histories)
    )
    columns.release()
    return Examples(
        schema=schema,
        columns=columns,
        part=parts,
        interaction_histories=interaction_histories,
        texts=texts,
        next_interactions=next_interactions,
    )


def _tried(read: Callable[..., Made], path: Path, **named: Any) -> Made:
    try:
        return read(path, **named)
    except FileNotFoundError:
        raise SchemaError(f"{path} does not exist; build the examples first") from None
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise SchemaError(f"{path} cannot be read ({error}); build the examples again") from error


def _check(path: Path, columns: Columns, num_texts: int, num_interaction_histories: int) -> None:
    if not len(columns):
        raise DataError(f"{path}: no rows; land exposures with known outcomes first")
    num_bad = int((~((columns["label"] >= 0) & (columns["label"] <= 1))).sum())
    if num_bad:
        raise DataError(f"{path}: {num_bad} rows have a label that is not between 0 and 1; build them again")
    limits = (
        ("text_id", 0, num_texts),
        ("query_id", -1, num_texts),
        ("history_id", 0, num_interaction_histories),
    )
    for name, low, high in limits:
        num_outside = int(((columns[name] < low) | (columns[name] >= high)).sum())
        columns.release()
        if num_outside:
            raise DataError(
                f"{path}: {num_outside} rows have a {name} outside {low}..{high - 1}; build them again"
            )
    infinite = [
        f"{name} ({count} rows)"
        for name, count in zip(columns.numeric, columns.num_infinite, strict=True)
        if count
    ]
    if infinite:
        warnings.warn(
            f"{path}: infinite values count as unknown in {', '.join(infinite)}; correct the source",
            stacklevel=3,
        )
