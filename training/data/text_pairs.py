"""Distinct (candidate, query) pairs: of many rows a few, for what is the same for all rows of a pair is computed once.

Shapes: N rows, P pairs.
"""

from typing import NamedTuple

import numpy as np

from training.data.columns import Columns


class ObservedPairs(NamedTuple):
    """What came of pairs.

    Attributes:
        pairs: (P, 2) numbers of text and query, -1 where there is no query.
        positive: (P,) float32, weight of each pair's positive outcomes.
        negative: (P,) float32, weight of its negative ones.
    """

    pairs: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def distinct_pairs(columns: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of some rows, (P, 2), and which of them each row has, (N,)."""
    text_id, query_id = (columns.at(name, rows).astype(np.int64) for name in ("text_id", "query_id"))
    base = query_id.max(initial=-1) + 2
    keys, place = np.unique(text_id * base + query_id + 1, return_inverse=True)
    return np.stack([keys // base, keys % base - 1], axis=1), place


def observed_pairs(
    columns: Columns, rows: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray, *, most: int, seed: int
) -> ObservedPairs:
    """What came of the pairs of some rows; of more than `most` pairs, so many that are drawn."""
    pairs, place = distinct_pairs(columns, rows)
    positive, negative = (
        np.bincount(place, values, len(pairs)).astype(np.float32)
        for values in (weight_N * label_N, weight_N * (1 - label_N))
    )
    drawn = np.arange(len(pairs))
    if len(drawn) > most:
        drawn = np.sort(np.random.default_rng(seed).choice(len(drawn), most, replace=False))
    return ObservedPairs(pairs[drawn], positive[drawn], negative[drawn])
