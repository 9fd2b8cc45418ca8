"""A cache of rows of a tensor by key, the least recently used left out (LRU)."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

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
