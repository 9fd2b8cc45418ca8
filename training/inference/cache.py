"""Caches of what serving computes for a key, the least recently used left out (LRU): vectors of texts, rows of tensors.

By hand, as functools.lru_cache is asked for one key at a time, and a model computes many keys' rows at once.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings

Key = TypeVar("Key", bound=Hashable)


class LRURowCache(Generic[Key]):
    """Rows computed when first asked for; the most recently used ones stay. Safe between threads.

    Args:
        compute: rows of distinct keys, in their order.
        capacity: how many rows to hold.
    """

    def __init__(self, compute: Callable[[list[Key]], Tensor], capacity: int) -> None:
        self._compute, self.capacity = compute, capacity
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, keys: Sequence[Key]) -> Tensor:
        """The rows of at least one key, one for each."""
        with self._lock:
            found = {key: self._rows[key] for key in keys if key in self._rows}
            missing = [key for key in dict.fromkeys(keys) if key not in found]
            if missing:
                found.update(zip(missing, self._compute(missing).unbind(0), strict=True))
            for key, row in found.items():
                self._rows[key] = row
                self._rows.move_to_end(key)
            while len(self._rows) > self.capacity:
                self._rows.popitem(last=False)
            return torch.stack([found[key] for key in keys])


class CachedTextVectors:
    """Vectors of known texts, and of the unknown ones used most recently.

    Args:
        encoder: encodes unknown texts.
        known: place of each known text.
        vectors: (T, E) vectors of the known texts.
        cache_size: most unknown texts to hold.
    """

    def __init__(
        self, encoder: TextEncoder, known: dict[str, int], vectors: Tensor, *, cache_size: int
    ) -> None:
        self.encoder, self.known, self.vectors = encoder, known, vectors
        self.cache = LRURowCache(self.encode, cache_size)

    def get(self, texts: Sequence[str], *, cached: bool = True) -> Tensor:
        """Vectors of texts, (V, E); unknown ones are encoded, through the cache or, for any number, past it."""
        places = torch.tensor([self.known.get(text, -1) for text in texts], dtype=torch.long)
        found = self.vectors[places.clamp_min(0)]
        unknown = torch.nonzero(places < 0).squeeze(1)
        if len(unknown):
            new = [texts[place] for place in unknown.tolist()]
            found[unknown] = self.cache.get(new) if cached else self.encode(new)
        return found

    def encode(self, texts: list[str]) -> Tensor:
        """Vectors of texts by the language model, (V, E)."""
        table = TextEmbeddings(self.encoder, texts, batch=64, device=str(self.vectors.device))
        table.refresh()
        return table.vectors
