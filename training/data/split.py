"""Train, validation and test parts: by time, a timestamp never in two of them, or by whole groups."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from expectations.contracts.examples import ExampleSchema
from expectations.contracts.source import SPLIT_BY
from expectations.errors import DataError, SchemaError
from training.data.columns import Columns

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = pd.Index([TRAIN, VALIDATION, TEST])
TEST_FRACTION = 0.2  # where a schema names no timestamp


def split(columns: Columns, texts: Sequence[str], schema: ExampleSchema) -> "pd.Categorical[str]":
    """The part of each row, as the schema says: by time or by groups.

    Args:
        columns: of the rows.
        texts: by `text_id`.
        schema: the examples' schema.

    Returns:
        (rows,) "train", "validation" or "test", one byte each.

    Raises:
        SchemaError: the schema names no column to split by. DataError: a part would have no rows.
    """
    if schema.split_by is None:
        return temporal_split(columns["event_timestamp"], schema)
    return group_split(columns, texts, schema)


def one_part(num_rows: int, part: str) -> "pd.Categorical[str]":
    """That part for every row."""
    return pd.Categorical.from_codes(np.full(num_rows, PARTS.get_loc(part), dtype=np.int8), categories=PARTS)


def group_split(columns: Columns, texts: Sequence[str], schema: ExampleSchema) -> "pd.Categorical[str]":
    """The part of each row by the hash of its group, so that a group is never in two parts, nor moves when others come.

    A fifth of the groups are the test part, `schema.validation_fraction` of the others the validation part. A row
    without a user or query is in the part of its query group.

    Raises:
        SchemaError: the schema names no column to split by. DataError: a part would have no rows.
    """
    if schema.split_by not in SPLIT_BY:
        raise SchemaError(
            f"examples: split_by is {schema.split_by!r}; choose one of {', '.join(SPLIT_BY)} in source.toml"
        )
    codes = columns["query_id" if schema.split_by == "query" else schema.split_by]
    found = [*texts, ""] if schema.split_by == "query" else columns.categories(schema.split_by)
    names = np.array([name or "" for name in found], dtype=object)  # the last one is that of code -1
    absent = (names == "")[codes]
    hashes = pd.util.hash_array(names)[codes]
    hashes[absent] = pd.util.hash_array(columns["query_group_id"][absent])
    place = hashes / 2.0**64
    later = TEST_FRACTION + (1 - TEST_FRACTION) * schema.validation_fraction
    part = (place < later).astype(np.int8) + (place < TEST_FRACTION)
    for number, name in enumerate(PARTS):
        if not (part == number).any():
            raise DataError(
                f"examples: of {len(np.unique(hashes))} groups by {schema.split_by}, none is in the {name} part; "
                "bring more groups, or split by time or another column ([split] in source.toml)"
            )
    return pd.Categorical.from_codes(part, categories=PARTS)


def temporal_split(event_timestamps: np.ndarray, schema: ExampleSchema) -> "pd.Categorical[str]":
    """The part of each row.

    The test part begins at `schema.test_from` (without one: at the timestamp nearest to the last
    fifth of the rows). Of the rows before, the latest are the validation part: the cut is the
    timestamp that brings their fraction nearest to `schema.validation_fraction`.

    Args:
        event_timestamps: (rows,) datetime64, any order.
        schema: the examples' schema.

    Returns:
        (rows,) "train", "validation" or "test", one byte each.

    Raises:
        DataError: no rows, or all rows before the test part are of one timestamp, so that no
            validation part can be cut off.
    """
    timestamps = np.asarray(event_timestamps, dtype="datetime64[us]")
    if len(timestamps) == 0:
        raise DataError("examples: no rows; land exposures with known outcomes first")
    counted = pd.Series(timestamps).value_counts().sort_index()
    distinct_timestamps, counts = counted.index.to_numpy(), counted.to_numpy()
    test_from = (
        np.datetime64(pd.Timestamp(schema.test_from), "us")
        if schema.test_from is not None
        else _cut(distinct_timestamps, counts, TEST_FRACTION, "test", before=2)
    )
    before = distinct_timestamps < test_from
    if not before.any():
        raise DataError(f"examples: no rows before test_from {test_from}; choose a later test_from")
    validation_from = _cut(
        distinct_timestamps[before], counts[before], schema.validation_fraction, "validation", before=1
    )
    codes = (timestamps >= validation_from).astype(np.int8) + (timestamps >= test_from)
    return pd.Categorical.from_codes(codes, categories=PARTS)


def _cut(
    distinct_timestamps: np.ndarray, counts: np.ndarray, fraction: float, part: str, *, before: int
) -> np.datetime64:
    """The timestamp whose rows and all later ones are nearest to a fraction of the rows.

    Where there are enough of them, so many timestamps stay `before` it, one for each part that is still to come.
    """
    if len(distinct_timestamps) < 2:
        raise DataError(
            f"examples: {counts.sum()} rows are all of the timestamp {distinct_timestamps[0]}, so no {part} part can "
            "be cut off by time; bring exposures of at least three timestamps, or split by groups ([split] by in "
            "source.toml)"
        )
    first = min(before, len(counts) - 1)
    later_fraction = counts[::-1].cumsum()[::-1][first:] / counts.sum()
    # Of two cuts equally near, the later one leaves more to learn from.
    nearest = len(later_fraction) - 1 - int(np.argmin(np.abs(later_fraction - fraction)[::-1]))
    return distinct_timestamps[first:][nearest]
