"""User–item features of one user and some candidates: those of `features.views.user_item` without a query plan.

A request's few thousand rows take less time than a plan for them, so what `features.views.user_item` declares
is computed here over arrays that were numbered and sorted when the candidates were loaded.

Shapes: k candidates, R rows of them (item, level, key), cells are k x levels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.views.shop import LEVELS
from features.views.user_item import AGGREGATIONS, ITEM_LISTS, KEY_AGGREGATES, KeyAggregation

_REDUCE: Mapping[str, np.ufunc] = {"sum": np.add, "count": np.add, "min": np.minimum, "max": np.maximum}


class UserItemArrays:
    """What histories say of the keys of candidates, from item_keys.parquet and levels.parquet of the feature rows."""

    def __init__(self, feature_rows: Path) -> None:
        order = [("item_id", "ascending"), ("level", "ascending")]
        covered = pq.read_table(feature_rows / "item_keys.parquet").sort_by(order)
        numbered = _level_and_key(covered).combine_chunks().dictionary_encode()
        self._num_keys = len(numbered.dictionary)
        self._key, self._weight = numbered.indices.to_numpy(), covered.column("weight").to_numpy()
        self._level = pc.index_in(covered.column("level"), pa.array(LEVELS)).to_numpy()
        self._candidates = _ByItem(covered)
        levels = pq.read_table(feature_rows / "levels.parquet").sort_by("item_id")
        places = pc.index_in(_level_and_key(levels), numbered.dictionary)
        self._key_of_history = places.drop_null().to_numpy()
        self._histories = _ByItem(levels.filter(places.is_valid()))

    def features(self, user: Mapping[str, Any], item_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """The user–item features of k candidates.

        Args:
            user: the lists of `features.views.user_history.user_history`.
            item_ids: the candidates.

        Returns:
            USER_ITEM_FEATURES, each (k,) float32; NaN where there is none.
        """
        keys, totals = self._totals(user)
        number = np.zeros(self._num_keys, dtype=np.int64)  # of a key in the history, from 1
        number[keys] = np.arange(1, len(keys) + 1)
        rows, candidate = self._candidates.rows(item_ids)
        shared = np.flatnonzero(number[self._key[rows]])
        rows, candidate = rows[shared], candidate[shared]
        cell, found = candidate * len(LEVELS) + self._level[rows], number[self._key[rows]] - 1
        first = _firsts(cell)
        features: dict[str, np.ndarray] = {}
        for name, aggregation in AGGREGATIONS.items():
            values = totals[aggregation.of][found] * (self._weight[rows] if aggregation.weighted else 1.0)
            cells = np.full(len(item_ids) * len(LEVELS), aggregation.default)
            cells[cell[first]] = _reduced(aggregation, values, first)
            of_level = cells.astype(np.float32).reshape(-1, len(LEVELS)).T
            features |= {f"user_item_{level}_{name}": of_level[place] for place, level in enumerate(LEVELS)}
        return features

    def _totals(self, user: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Distinct keys of a history, ascending, and what it says of each."""
        rows, item = self._histories.rows(user[ITEM_LISTS["covered_id"]])
        order = np.argsort(self._key_of_history[rows], kind="stable")
        keys, item = self._key_of_history[rows][order], item[order]
        first = _firsts(keys)
        totals = {}
        for name, how in KEY_AGGREGATES.items():
            values = np.array(user[ITEM_LISTS[name]], dtype=np.float64)[item]
            totals[name] = _REDUCE[how].reduceat(values, first) if len(first) else values
        return keys[first], totals


class _ByItem:
    """Rows in the order of their item_id, so that the rows of a few items are a few slices."""

    def __init__(self, table: pa.Table) -> None:
        ids, starts, counts = np.unique(
            table.column("item_id").to_numpy(), return_index=True, return_counts=True
        )
        self._place = {item: place for place, item in enumerate(ids.tolist())}
        # An item that has no row is at place -1.
        self._starts, self._counts = np.append(starts, 0), np.append(counts, 0)

    def rows(self, item_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the rows of those items, and which of the items each is of."""
        places = np.array([self._place.get(item, -1) for item in item_ids], dtype=np.int64)
        counts = self._counts[places]
        before = counts.cumsum() - counts
        rows = np.arange(counts.sum()) + np.repeat(self._starts[places] - before, counts)
        return rows, np.repeat(np.arange(len(places)), counts)


def _level_and_key(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table.column("level"), table.column("key"), "\n")


def _firsts(ascending: np.ndarray) -> np.ndarray:
    """Where each value of an ascending array of numbers from 0 begins."""
    return np.flatnonzero(np.diff(ascending, prepend=-1))


def _reduced(aggregation: KeyAggregation, values: np.ndarray, first: np.ndarray) -> np.ndarray:
    if not len(first):
        return values
    if aggregation.how == "count":
        values = np.ones_like(values)
    found: np.ndarray = _REDUCE[aggregation.how].reduceat(values, first)
    if aggregation.digits is None:
        return found
    scale = 10.0**aggregation.digits
    return np.trunc(found * scale + np.copysign(0.5, found)) / scale  # a half away from 0, as SQL rounds
