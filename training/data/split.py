"""Parts in time: train, then validation, then test. A moment is never in two parts."""

import numpy as np
import pandas as pd

from expectations.contracts.examples import ExampleSchema
from expectations.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
BLOCK = 1 << 20  # rows looked at together
LAST_FRACTION = 0.2  # the test part where a schema names no moment


def parts(event_timestamps: np.ndarray, schema: ExampleSchema) -> "pd.Categorical[str]":
    """The part of each row.

    The test part begins at `schema.test_from` (without one: at the moment nearest to the last
    fifth of the rows). Of the rows before, the latest are the validation part: the cut is the
    moment that brings their share nearest to `schema.validation_fraction`.

    Args:
        event_timestamps: (rows,) datetime64, any order.
        schema: the examples' schema.

    Returns:
        (rows,) "train", "validation" or "test", one byte each.

    Raises:
        DataError: no rows, or all rows before the test part are of one moment, so that no
            validation part can be cut off.
    """
    moments = np.asarray(event_timestamps, dtype="datetime64[us]")
    if len(moments) == 0:
        raise DataError("examples: no rows; land exposures with known outcomes first")
    distinct, counts = _counted(moments)
    test_from = (
        np.datetime64(pd.Timestamp(schema.test_from), "us")
        if schema.test_from is not None
        else _cut(distinct, counts, LAST_FRACTION, "test")
    )
    before = distinct < test_from
    if not before.any():
        raise DataError(f"examples: no rows before test_from {test_from}; choose a later test_from")
    validation_from = _cut(distinct[before], counts[before], schema.validation_fraction, "validation")
    codes = (moments >= validation_from).astype(np.int8) + (moments >= test_from)
    return pd.Categorical.from_codes(codes, categories=pd.Index([TRAIN, VALIDATION, TEST]))


def _counted(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct moments, ascending, and how many rows are of each; block by block, as rows may be many."""
    blocks = [
        np.unique(block, return_counts=True) for block in np.array_split(moments, -(-len(moments) // BLOCK))
    ]
    distinct, place = np.unique(np.concatenate([block[0] for block in blocks]), return_inverse=True)
    counts = np.bincount(place, weights=np.concatenate([block[1] for block in blocks]))
    return distinct, counts.astype(np.int64)


def _cut(distinct: np.ndarray, counts: np.ndarray, share: float, part: str) -> np.datetime64:
    """The moment whose rows and all later ones are nearest to a share of the rows."""
    if len(distinct) < 2:
        raise DataError(
            f"examples: {counts.sum()} rows are all of the moment {distinct[0]}, so no {part} part can be "
            "cut off by time; bring exposures of at least three moments"
        )
    later_share = counts[::-1].cumsum()[::-1][1:] / counts.sum()
    # Of two cuts equally near, the later one leaves more to learn from.
    nearest = len(later_share) - 1 - int(np.argmin(np.abs(later_share - share)[::-1]))
    return distinct[1:][nearest]
