"""Temporal split: train, then validation, then test. A timestamp is never in two parts."""

import numpy as np
import pandas as pd

from expectations.contracts.examples import ExampleSchema
from expectations.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
LAST_FRACTION = 0.2  # the test part where a schema names no timestamp


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
        else _cut(distinct_timestamps, counts, LAST_FRACTION, "test")
    )
    before = distinct_timestamps < test_from
    if not before.any():
        raise DataError(f"examples: no rows before test_from {test_from}; choose a later test_from")
    validation_from = _cut(
        distinct_timestamps[before], counts[before], schema.validation_fraction, "validation"
    )
    codes = (timestamps >= validation_from).astype(np.int8) + (timestamps >= test_from)
    return pd.Categorical.from_codes(codes, categories=pd.Index([TRAIN, VALIDATION, TEST]))


def _cut(distinct_timestamps: np.ndarray, counts: np.ndarray, fraction: float, part: str) -> np.datetime64:
    """The timestamp whose rows and all later ones are nearest to a fraction of the rows."""
    if len(distinct_timestamps) < 2:
        raise DataError(
            f"examples: {counts.sum()} rows are all of the timestamp {distinct_timestamps[0]}, so no {part} part can "
            "be cut off by time; bring exposures of at least three timestamps"
        )
    later_fraction = counts[::-1].cumsum()[::-1][1:] / counts.sum()
    # Of two cuts equally near, the later one leaves more to learn from.
    nearest = len(later_fraction) - 1 - int(np.argmin(np.abs(later_fraction - fraction)[::-1]))
    return distinct_timestamps[1:][nearest]
