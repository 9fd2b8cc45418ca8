"""One step: the gradient of a batch's mean loss, over all ranks, in as many parts as memory needs.

A part's mean loss counts by its share of the batch's rows, so the sum over parts and ranks is the loss of the
whole batch, and so is its gradient. Each part draws what the whole batch would have drawn.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from expectations.contracts.errors import SettingError
from training import ranks
from training.memory import in_parts

if TYPE_CHECKING:
    from training.stage import Stage


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
    value = ranks.sum_gradients(parameters, _backward(stage, parameters, rows, rng, at_once))
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
    state = rng.bit_generator.state

    def begin() -> None:
        for parameter in parameters:
            parameter.grad = None

    def part(chosen: np.ndarray) -> float:
        rng.bit_generator.state = state
        loss = stage.loss(chosen, rng) * (len(chosen) / len(rows))
        if torch.isfinite(loss):
            loss.backward()
        return float(loss.detach())

    name = f"rows of stage {stage.name}"
    return sum(in_parts(part, ranks.share(rows), name=name, at_once=at_once, begin=begin), 0.0)
