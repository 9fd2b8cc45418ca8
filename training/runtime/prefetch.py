"""The next batch is made while the one before is learned from.

By hand: torch's DataLoader makes batches in other processes, which would each map the columns and send tensors back; a
thread has them at hand, and NumPy lets the others work while it copies.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Prefetch(Generic[T]):
    """What `make` makes of rows, begun ahead in a thread where that is worth it.

    Args:
        make: from row numbers, (N,), to what is wanted of them; reads only.
        ahead: whether to begin ahead: worth it where a GPU computes in the meantime, while on a CPU the thread would
            take a core from the step under way.
    """

    def __init__(self, make: Callable[[np.ndarray], T], *, ahead: bool) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if ahead else None
        self._begun: deque[tuple[np.ndarray, Future[T]]] = deque()

    def begin(self, rows: np.ndarray) -> None:
        """Begin with rows that will be asked for, after those that were begun before."""
        if self._pool is not None:
            self._begun.append((rows, self._pool.submit(self._make, rows)))

    def __call__(self, rows: np.ndarray) -> T:
        """What is made of these rows, begun ahead or made now."""
        while self._begun:
            begun, future = self._begun.popleft()
            if np.array_equal(begun, rows):
                return future.result()
        return self._make(rows)
