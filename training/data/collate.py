"""Collation: rows to tensors; users, candidate-query pairs and texts once a batch, rows by their positions.

Shapes: N rows, U users (distinct interaction histories), P distinct candidate-query pairs, V distinct texts,
H history, F numeric, C categorical features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from expectations.contracts.examples import REFERENCE_POSITION
from training.data.dataset import Examples
from training.data.sampling import positions, tabular_batches
from training.data.transforms import Transforms

MATRIX_ROWS = 1 << 16  # whose features are made at once

Lexical = Callable[[Sequence[str], Sequence[str | None]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows as tensors; texts by their positions among the batch's distinct texts.

    Attributes:
        numeric_features: (N, F) float32, NaN where unknown.
        categorical_features: (N, C) int64 codes.
        candidate_query: (N,) each row's candidate-query pair.
        candidate_text, query_text: (P,) positions of texts; -1: no query.
        lexical: (P,) the lexical path's logit of each pair, 0 without one.
        user: (N,) each row's interaction history.
        history: (U, H) positions of texts; -1: padding.
        history_features: (U, H, 4) events, amount, days ago, sentiment.
    """

    numeric_features: Tensor
    categorical_features: Tensor
    candidate_query: Tensor
    candidate_text: Tensor
    query_text: Tensor
    lexical: Tensor
    user: Tensor
    history: Tensor
    history_features: Tensor

    def to(self, device: str) -> "Batch":
        """The batch on a device."""
        return replace(
            self, **{field.name: moved(getattr(self, field.name), device) for field in fields(self)}
        )

    def pinned(self) -> "Batch":
        """The batch in memory from which a GPU copies while it computes."""
        return replace(self, **{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})


def moved(tensor: Tensor, device: str) -> Tensor:
    """A tensor on a device; from pinned memory, it is copied while the device goes on."""
    return tensor.to(device, non_blocking=tensor.is_pinned()) if device != "cpu" else tensor


class Collator:
    """Makes batches from an examples folder's rows, which stay on disk but for those of the batch.

    Args:
        examples: the examples.
        transforms: fitted transforms.
        served: (rows of the examples,) True for rows whose position is REFERENCE_POSITION, as in a request; None: each
            row's is what it was.
        lexical: gives the lexical logits of texts with their queries or None; None: 0 for all.
        pin_memory: whether `features` and `batch` lie in memory from which a GPU copies while it computes.

    Raises:
        BundleError: the examples lack a feature that the transforms were fitted on.
    """

    def __init__(
        self,
        examples: Examples,
        transforms: Transforms,
        *,
        served: np.ndarray | None = None,
        lexical: Lexical | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.columns = columns = examples.columns
        self.texts, self.lexical, self._pin_memory = examples.texts, lexical, pin_memory
        self.transforms = transforms
        self.text_id, self.query_id = columns["text_id"], columns["query_id"]
        self.history_id, self.interaction_histories = columns["history_id"], examples.interaction_histories
        transforms.require(columns.names)
        self._numeric = [columns.numeric.index(name) for name in transforms.numeric]
        self._served = served
        self._position = [
            place for place, name in enumerate(transforms.numeric) if name == examples.schema.position
        ]
        self._categorical = [columns.categorical.index(name) for name in transforms.categorical]
        # The code of each category that the rows hold; at position -1 that of an unknown one.
        self._code_by_category = [
            transforms.category_codes(name, columns.categories(name)) for name in transforms.categorical
        ]

    def features(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Numeric (k, F) float32 and categorical (k, C) int64 features of some rows, as the transforms make them."""
        numeric, categorical = map(torch.from_numpy, self._features(rows))
        return (
            (numeric.pin_memory(), categorical.pin_memory()) if self._pin_memory else (numeric, categorical)
        )

    def _features(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.columns.numeric_features(rows)[:, self._numeric]
        if self._served is not None:
            numbers[np.ix_(self._served[rows], self._position)] = REFERENCE_POSITION
        numeric = self.transforms.clipped(numbers)
        found = self.columns.categorical_features(rows)[:, self._categorical].T
        categorical = np.zeros((len(rows), len(found)), dtype=np.int64)
        for place, (code_by_category, column) in enumerate(zip(self._code_by_category, found, strict=True)):
            categorical[:, place] = code_by_category[column]
        return numeric, categorical

    def feature_matrix(self, rows: np.ndarray) -> np.ndarray:
        """All features of some rows, numeric, then categorical, (N, D) float32, made by blocks."""
        transforms = self.transforms
        matrix = np.empty(
            (len(rows), len(transforms.numeric) + len(transforms.categorical)), dtype=np.float32
        )
        for part, block in zip(
            tabular_batches(matrix, MATRIX_ROWS), tabular_batches(rows, MATRIX_ROWS), strict=True
        ):
            np.concatenate(self._features(block), axis=1, out=part)
        return matrix

    def batch(self, rows: np.ndarray) -> tuple[Batch, np.ndarray]:
        """The batch of some rows, and the (V,) text ids that its positions stand for, ascending.

        Args:
            rows: (N,) row numbers.
        """
        history_ids, user = np.unique(self.history_id[rows], return_inverse=True)
        history, features = self.interaction_histories.padded(history_ids)
        key = np.stack([self.text_id[rows], self.query_id[rows]], axis=1)
        pairs, candidate_query = np.unique(key, axis=0, return_inverse=True)
        text_ids = self._distinct_texts(history, pairs)
        numeric, categorical = self.features(rows)
        self.columns.release()
        batch = Batch(
            numeric_features=numeric,
            categorical_features=categorical,
            candidate_query=torch.from_numpy(candidate_query.reshape(-1)),
            candidate_text=torch.from_numpy(positions(text_ids, pairs[:, 0])),
            query_text=torch.from_numpy(positions(text_ids, pairs[:, 1])),
            lexical=self._lexical_logits(pairs),
            user=torch.from_numpy(user.reshape(-1)),
            history=torch.from_numpy(positions(text_ids, history)),
            history_features=torch.from_numpy(features),
        )
        return batch.pinned() if self._pin_memory else batch, text_ids

    def _lexical_logits(self, pairs: np.ndarray) -> Tensor:
        if self.lexical is None:
            return torch.zeros(len(pairs))
        return self.lexical(*self.pair_texts(pairs)).cpu()

    def pair_texts(self, pairs_P2: np.ndarray) -> tuple[list[str], list[str | None]]:
        """Texts and queries of pairs of their ids; None for -1."""
        texts, queries = pairs_P2.T
        return [self.texts[text] for text in texts], [
            self.texts[query] if query >= 0 else None for query in queries
        ]

    def text_ids(self, rows: np.ndarray) -> np.ndarray:
        """Text ids of the batch of some rows, ascending."""
        history, _ = self.interaction_histories.padded(np.unique(self.history_id[rows]))
        return self._distinct_texts(history, self.text_id[rows], self.query_id[rows])

    def _distinct_texts(self, *text_ids: np.ndarray) -> np.ndarray:
        there = np.zeros(len(self.texts) + 1, dtype=bool)  # the last for -1: nothing
        for ids in text_ids:
            there[ids] = True
        return np.flatnonzero(there[:-1])

    def chunks(self, rows: np.ndarray, *, size: int = 16384, num_pairs: int = 64) -> Iterator[np.ndarray]:
        """Positions in `rows`, each once, in chunks of at most `size` rows and `num_pairs` candidate-query pairs."""
        text, query = self.text_id[rows], self.query_id[rows]
        self.columns.release()
        order = np.lexsort((query, text))
        text, query = text[order], query[order]
        new = np.r_[True, (text[1:] != text[:-1]) | (query[1:] != query[:-1])][: len(order)]
        for group in np.split(order, np.flatnonzero(new)[num_pairs::num_pairs]):
            yield from (group[start : start + size] for start in range(0, len(group), size))
