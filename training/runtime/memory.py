"""Where memory is short: the same work in micro-batches.

By hand, as accelerate's `find_executable_batch_size` empties caches at every call, knows no NumPy `MemoryError` and
remembers no size from one call to the next.
"""

import gc
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from expectations.errors import SettingError

SAYS_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")

T = TypeVar("T")


def in_microbatches(
    act: Callable[[np.ndarray], T],
    items: np.ndarray,
    *,
    name: str,
    sizes: dict[str, int],
    begin: Callable[[], None] = lambda: None,
) -> list[T]:
    """What `act` makes of items: of all at once, or of micro-batches, halved until they fit into memory.

    Args:
        act: is given some neighbouring items; starts from nothing after `begin`.
        items: what is to be worked on.
        name: what this is, for messages and `sizes`.
        sizes: how many items were found to fit; changed where fewer do.
        begin: called before the first micro-batch, and again after memory was short.

    Raises:
        SettingError: not even one item fits.
    """
    while len(items):
        most = min(sizes.get(name, len(items)), len(items))
        begin()
        try:
            return [act(part) for part in np.array_split(items, -(-len(items) // most))]
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            problem = str(error).splitlines()[0]
        # Not before here does the error let go what the attempt held.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if most == 1:
            raise SettingError(
                f"{name}: one alone does not fit into memory ({problem}); lower max_tokens, texts_per_step or the "
                "sizes of the model in the recipe"
            )
        sizes[name] = most // 2
        warnings.warn(
            f"{name}: {most} at once do not fit into memory; going on with {most // 2} at once: the same result, "
            "more slowly",
            stacklevel=2,
        )
    begin()
    return []


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        message in str(error) for message in SAYS_NO_MEMORY
    )
