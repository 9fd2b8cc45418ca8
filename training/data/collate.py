"""Batches: which rows an epoch sees, and their tensors.

Rows with an answer are all seen; of the others a share is drawn, anew each epoch. A model trained on such
rows sees odds 1/share too high; subtracting log(1/share) from the logit is exact (King & Zeng 2001, section
4.1), so the loss adds it and the model's own logit stays honest.

Shapes: N rows, U distinct histories, P distinct (candidate, query) pairs, V distinct texts, H history,
F numeric, C categorical.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from training.data.columns import Columns
from training.data.dataset import Examples
from training.data.sampling import blocks
from training.data.transforms import Transforms

TABLE_ROWS = 1 << 16  # whose features are made at once


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows as tensors; texts by their place among the batch's distinct texts.

    Attributes:
        numbers: (N, F) float32, NaN where unknown.
        codes: (N, C) int64.
        pair: (N,) each row's (candidate, query) pair.
        pair_text, pair_query: (P,) places of texts; -1: no query.
        person: (N,) each row's history.
        history: (U, H) places of texts; -1: nothing.
        history_features: (U, H, 4) events, amount, days ago, polarity.
    """

    numbers: Tensor
    codes: Tensor
    pair: Tensor
    pair_text: Tensor
    pair_query: Tensor
    person: Tensor
    history: Tensor
    history_features: Tensor

    def to(self, device: str) -> "Batch":
        """The batch on a device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class Collator:
    """Makes batches from an examples folder's rows, which stay on disk but for those of the batch.

    Args:
        examples: the examples.
        transforms: fitted transforms.

    Raises:
        BundleError: the examples lack a feature that the transforms were fitted on.
    """

    def __init__(self, examples: Examples, transforms: Transforms) -> None:
        self.columns = columns = examples.columns
        self.transforms = transforms
        self.text_id, self.query_id = columns["text_id"], columns["query_id"]
        self.history_id, self.histories = columns["history_id"], examples.histories
        transforms.require(columns.names)
        self._num_texts = len(examples.texts)
        self._numeric = [columns.numeric.index(name) for name in transforms.numeric]
        self._categorical = [columns.categorical.index(name) for name in transforms.categorical]
        # Of each category that the rows hold, its code; at place -1 that of an unknown one.
        self._code_of = [transforms.code(name, columns.words(name)) for name in transforms.categorical]

    def features(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Numbers (k, F) float32 and codes (k, C) int64 of some rows, as the transforms make them."""
        numbers = self.transforms.clipped(self.columns.numbers(rows)[:, self._numeric])
        found = self.columns.codes(rows)[:, self._categorical].T
        codes = np.zeros((len(rows), len(found)), dtype=np.int64)
        for place, (code_of, column) in enumerate(zip(self._code_of, found, strict=True)):
            codes[:, place] = code_of[column]
        return torch.from_numpy(numbers), torch.from_numpy(codes)

    def table(self, rows: np.ndarray) -> np.ndarray:
        """All features of some rows, numbers, then codes, (N, D) float32, made by blocks."""
        transforms = self.transforms
        table = np.empty((len(rows), len(transforms.numeric) + len(transforms.categorical)), dtype=np.float32)
        for part, block in zip(
            tabular_batches(table, TABLE_ROWS), tabular_batches(rows, TABLE_ROWS), strict=True
        ):
            np.concatenate([values.numpy() for values in self.features(block)], axis=1, out=part)
        return table

    def batch(self, rows: np.ndarray) -> tuple[Batch, np.ndarray]:
        """The batch of some rows, and the (V,) text ids that its places stand for, ascending.

        Args:
            rows: (N,) row numbers.
        """
        histories, person = np.unique(self.history_id[rows], return_inverse=True)
        history, features = self.histories.padded(histories)
        key = np.stack([self.text_id[rows], self.query_id[rows]], axis=1)
        pairs, pair = np.unique(key, axis=0, return_inverse=True)
        text_ids = self._distinct(history, pairs)
        numbers, codes = self.features(rows)
        self.columns.release()
        batch = Batch(
            numbers=numbers,
            codes=codes,
            pair=torch.from_numpy(pair.reshape(-1)),
            pair_text=torch.from_numpy(places(text_ids, pairs[:, 0])),
            pair_query=torch.from_numpy(places(text_ids, pairs[:, 1])),
            person=torch.from_numpy(person.reshape(-1)),
            history=torch.from_numpy(places(text_ids, history)),
            history_features=torch.from_numpy(features),
        )
        return batch, text_ids

    def text_ids(self, rows: np.ndarray) -> np.ndarray:
        """Text ids of the batch of some rows, ascending."""
        history, _ = self.histories.padded(np.unique(self.history_id[rows]))
        return self._distinct(history, self.text_id[rows], self.query_id[rows])

    def _distinct(self, *text_ids: np.ndarray) -> np.ndarray:
        there = np.zeros(self._num_texts + 1, dtype=bool)  # the last for -1: nothing
        for ids in text_ids:
            there[ids] = True
        return np.flatnonzero(there[:-1])

    def chunks(self, rows: np.ndarray, *, size: int = 16384, num_pairs: int = 64) -> Iterator[np.ndarray]:
        """Cut rows into chunks of at most `size` rows and `num_pairs` distinct pairs: places in `rows`, each once."""
        text, query = self.text_id[rows], self.query_id[rows]
        self.columns.release()
        order = np.lexsort((query, text))
        text, query = text[order], query[order]
        new = np.r_[True, (text[1:] != text[:-1]) | (query[1:] != query[:-1])][: len(order)]
        for group in np.split(order, np.flatnonzero(new)[num_pairs::num_pairs]):
            yield from (group[start : start + size] for start in range(0, len(group), size))


def places(text_ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places of text ids among ascending distinct ones; -1 stays."""
    return np.where(wanted >= 0, np.searchsorted(text_ids, wanted), -1)


def distinct(columns: Columns, name: str, rows: np.ndarray) -> np.ndarray:
    """Distinct values of a column of `ROW_SCHEMA` in some rows, ascending."""
    return np.unique(np.concatenate([np.unique(columns.at(name, block)) for block in blocks(rows)]))


def drawn_rows(labels: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """All rows with an answer and a drawn share of the others, shuffled; of many rows, of each block a share."""
    return rng.permutation(np.concatenate([_drawn(labels, block, share, rng) for block in blocks(rows)]))


def _drawn(labels: np.ndarray, rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    answered = rows[labels[rows] > 0]
    others = rows[labels[rows] == 0]
    drawn = (
        rng.choice(others, size=max(1, round(len(others) * share)), replace=False) if len(others) else others
    )
    return np.concatenate([answered, drawn])


def tabular_batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Nearly equal batches of at most `size` rows."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def text_batches(
    rows: np.ndarray, text_id: np.ndarray, *, num_texts: int, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of few distinct candidate texts: each text's rows stay together, texts are shuffled.

    Args:
        rows: (N,) row numbers.
        text_id: candidate text of every row of the data.
        num_texts: most distinct texts in a batch.
        size: rows after which a batch is full; a text with more rows is cut.
        rng: source of the shuffle.
    """
    distinct, of_text = np.unique(text_id[rows], return_inverse=True)
    turn = rng.permutation(len(distinct))[of_text]
    order = np.argsort(turn, kind="stable")
    counts = np.bincount(turn, minlength=len(distinct))
    batches: list[np.ndarray] = []
    start = texts = filled = 0
    for count in counts:
        if texts and (texts == num_texts or filled + count > size):
            batches.append(rows[order[start : start + filled]])
            start, texts, filled = start + filled, 0, 0
        texts, filled = texts + 1, filled + int(count)
    batches.append(rows[order[start : start + filled]])
    return [part for batch in batches for part in tabular_batches(batch, size)]
