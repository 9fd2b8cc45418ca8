"""The folder of training examples: where `features` and `training` meet.

    examples/
    ├── schema.json                     ExampleSchema
    ├── rows.parquet                    one row per exposure whose outcome is known, ordered by event_timestamp
    ├── interaction_histories.parquet   one row per (user_id, event_timestamp): interactions and feedback before
    ├── next_interactions.parquet       one row per (user_id, earlier event_timestamp): topics interacted with after
    └── texts.parquet                   one row per distinct text

Rows name texts and histories by number, so that each distinct text is stored, read and encoded once.
`text_id` and `history_id` are row numbers (from 0) of their tables; `query_id` is a `text_id`, or -1.
Next interactions need no label: they are for self-supervised learning, which must leave out those that end after
the rows it is measured on begin.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from expectations.errors import SchemaError
from expectations.storage.atomic import read_json, write_json

ROWS, INTERACTION_HISTORIES, TEXTS, SCHEMA = (
    "rows.parquet",
    "interaction_histories.parquet",
    "texts.parquet",
    "schema.json",
)
NEXT_INTERACTIONS, NEXT_WINDOW_DAYS = "next_interactions.parquet", 28

REFERENCE_POSITION = 1.0
"""The position that an item is scored at, so that it is not judged by where it happened to stand."""

ROW_SCHEMA = pa.schema(
    [
        ("exposure_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("scenario", pa.string()),
        ("event_timestamp", pa.timestamp("us")),
        ("query_group_id", pa.int64()),  # exposures of one shopper, scenario, query and event_timestamp
        ("label", pa.float32()),  # 0 to 1: the fraction that is positive, or the gain of a graded outcome
        ("weight", pa.float32()),  # above 0: how many impressions the row stands for
        ("text_id", pa.int32()),  # the candidate's text
        ("query_id", pa.int32()),  # the query's or utterance's text, -1: none
        ("history_id", pa.int32()),
    ]
)
"""Columns that every example row has, before its features (numeric: float32, categorical: string)."""

INTERACTION_HISTORY_SCHEMA = pa.schema(
    [
        ("history_id", pa.int32()),
        # topics interacted with, newest first, each once; then feedback, likewise
        ("text_ids", pa.list_(pa.int32())),
        ("events", pa.list_(pa.float32())),  # how often
        ("amounts", pa.list_(pa.float32())),  # shop currency
        ("days_ago", pa.list_(pa.float32())),  # days from the last time to event_timestamp
        (
            "sentiments",
            pa.list_(pa.float32()),
        ),  # of feedback: -1 the worst, 1 the best; 0: no feedback, or unknown
    ]
)

NEXT_INTERACTION_SCHEMA = pa.schema(
    [
        ("history_id", pa.int32()),  # the history before event_timestamp
        ("event_timestamp", pa.timestamp("us")),
        ("text_ids", pa.list_(pa.int32())),  # topics interacted with in the NEXT_WINDOW_DAYS from then on
    ]
)

TEXT_SCHEMA = pa.schema([("text_id", pa.int32()), ("text", pa.string())])


@dataclass(frozen=True, kw_only=True)
class ExampleSchema:
    """What the rows of an examples folder hold.

    Attributes:
        source: name of the source whose data this is.
        fingerprint: hash of the data and of the code version that made the examples.
        feature_service: Feast feature services the features came from.
        numeric: names of the numeric feature columns, float32, NaN where unknown.
        categorical: names of the categorical feature columns, null where unknown.
        popularity: the numeric column that a popularity ranking sorts by.
        activity: the numeric column that counts the shopper's past events: 0 is a new shopper.
        slices: categorical columns to report quality by.
        test_from: the test part begins here; None: the last fifth of the rows by time.
        validation_fraction: fraction of the rows before `test_from` that are the validation part, the latest.
        horizon: the time up to which the data reach.
        split_by: column whose groups are whole in one part, chosen by hash; None: parts follow each other in time.
        position: the numeric column that holds the shown position, 1 the first; None: the shop has none. It is learned
            from as it was, and is REFERENCE_POSITION wherever items are scored.
    """

    source: str
    fingerprint: str
    feature_service: str
    numeric: Sequence[str]
    categorical: Sequence[str]
    popularity: str
    activity: str
    slices: Sequence[str]
    test_from: datetime | None
    validation_fraction: float
    horizon: datetime
    split_by: str | None = None
    position: str | None = None

    def write(self, folder: Path) -> None:
        """Write `schema.json` into the folder."""
        write_json(folder / SCHEMA, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "ExampleSchema":
        """Read `schema.json` of an examples folder.

        Raises:
            SchemaError: the folder is not an examples folder.
        """
        values = read_json(folder / SCHEMA)
        try:
            for name in ("test_from", "horizon"):
                if values[name] is not None:
                    values[name] = datetime.fromisoformat(values[name])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"{folder / SCHEMA} is not an example schema: {error}") from error
