"""What is computed once and asked for again: rows of a tensor by key."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


class RecentRows(Generic[Key]):
    """Rows that were computed when first asked for; the most recently used ones stay. Safe between threads.

    Args:
        compute: rows of distinct keys, in their order.
        most: how many rows to keep.
    """

    def __init__(self, compute: Callable[[list[Key]], Tensor], most: int) -> None:
        self._compute, self.most = compute, most
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, keys: Sequence[Key]) -> Tensor:
        """The rows of at least one key, one for each."""
        with self._lock:
            found = {key: self._rows[key] for key in keys if key in self._rows}
            new = [key for key in dict.fromkeys(keys) if key not in found]
            if new:
                found.update(zip(new, self._compute(new).unbind(0), strict=True))
            for key, row in found.items():
                self._rows[key] = row
                self._rows.move_to_end(key)
            while len(self._rows) > self.most:
                self._rows.popitem(last=False)
            return torch.stack([found[key] for key in keys])
