"""One step: the gradient of a batch's mean loss, over all ranks, in as many parts as memory needs.

A part's mean loss counts by its share of the batch's rows, so the sum over parts and ranks is the loss of the
whole batch, and so is its gradient. Each part draws what the whole batch would have drawn.
"""

import gc
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from expectations.contracts.errors import SettingError
from training import ranks

if TYPE_CHECKING:
    from training.course import Stage

SAYS_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


def take_step(
    stage: "Stage",
    optimizer: torch.optim.Optimizer,
    rows: np.ndarray,
    rng: np.random.Generator,
    *,
    clip_norm: float,
    at_once: dict[str, int],
) -> tuple[float, float]:
    """Learn from one batch.

    Args:
        stage: gives the loss.
        optimizer: of what learns.
        rows: the batch.
        rng: the epoch's generator.
        clip_norm: greatest length of the gradient.
        at_once: rows that were found to fit into memory, by stage; changed where fewer do.

    Returns:
        The loss, and the gradient's length before it was clipped.

    Raises:
        SettingError: the loss is no longer a number, or not even one row fits into memory.
    """
    if stage.draw is not None:
        stage.draw(rows, rng)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    value = _backward(stage, parameters, rows, rng, at_once)
    value = ranks.sum_gradients(parameters, value)
    if not math.isfinite(value):
        raise SettingError(f"the loss of stage {stage.name} is {value}; lower the recipe's learning rates")
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    optimizer.step()
    return value, norm


def _backward(
    stage: "Stage",
    parameters: Sequence[nn.Parameter],
    rows: np.ndarray,
    rng: np.random.Generator,
    at_once: dict[str, int],
) -> float:
    """Put this rank's part of the gradient in place; returns its part of the loss."""
    mine, state = ranks.share(rows), rng.bit_generator.state
    while True:
        most = at_once.get(stage.name, len(mine))
        for parameter in parameters:
            parameter.grad = None
        parts = np.array_split(mine, -(-len(mine) // max(most, 1))) if len(mine) else []
        try:
            return sum((_part(stage, part, len(part) / len(rows), rng, state) for part in parts), 0.0)
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            problem = str(error).splitlines()[0]
        # Not before here does the error let go what the step held.
        most = min(most, len(mine))
        if most <= 1:
            raise SettingError(
                f"stage {stage.name}: one row alone does not fit into memory ({problem}); lower max_tokens, "
                "texts_per_step or the sizes of the model in the recipe"
            )
        at_once[stage.name] = most // 2
        warnings.warn(
            f"stage {stage.name}: {most} rows at once do not fit into memory; going on with {most // 2} at once, "
            "gradients added up: the same result, more slowly",
            stacklevel=2,
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _part(stage: "Stage", rows: np.ndarray, share: float, rng: np.random.Generator, state: Any) -> float:
    rng.bit_generator.state = state
    loss = stage.loss(rows, rng) * share
    value = float(loss.detach())
    if math.isfinite(value):
        loss.backward()
    return value


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in SAYS_NO_MEMORY
    )
