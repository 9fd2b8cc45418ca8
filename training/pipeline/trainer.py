"""The trainer of one phase: epochs, learning rate, early stopping, checkpoints, log.

An epoch's randomness comes from (seed, phase, epoch) alone, so a fit that was killed and resumed
draws what it would have drawn.

A step is the gradient of a batch's mean loss, over all processes, in as many parts as memory needs. A part's mean loss
counts by its fraction of the batch's rows, so the sum over parts and processes is the loss of the whole batch, and
so is its gradient. Each part draws what the whole batch would have drawn.
"""

import math
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from expectations.errors import DataError, SettingError
from training.config.recipe import Recipe
from training.evaluation.metrics import LOWER_IS_BETTER
from training.runtime import distributed
from training.runtime.checkpoint import (
    Checkpoints,
    TrainingState,
    optimizer_tensors,
    restore,
    restore_optimizer,
    select_prefix,
    trainable_state,
    trainable_tensors,
    with_prefix,
)
from training.runtime.memory import in_microbatches


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a fit, by its name in logs and checkpoints.

    Attributes:
        modules: the modules that learn or are saved, by name.
        groups: optimizer groups: parameters, `lr`, and `weight_decay` where it is not the recipe's.
        batches: an epoch's generator -> row numbers of each batch.
        loss: row numbers and the epoch's generator -> mean loss of a batch, or of a part of one.
        finish: called after an epoch and after weights were put back (refreshes vectors).
        after_step: called after each step, its gradients in place, with the fraction of the planned steps that
            were over before it.
        before_step: called before each step with all its rows and the epoch's generator: draws what must be the same
            for all parts of the batch.
        prefetch: told the rows of the steps to come, this process's shard of them, one step ahead.
    """

    name: str
    modules: dict[str, nn.Module]
    groups: Sequence[dict[str, Any]]
    planned: int  # epochs that the learning rate is planned for
    epochs: int  # to run, at most `planned`
    batches: Callable[[np.random.Generator], list[np.ndarray]]
    loss: Callable[[np.ndarray, np.random.Generator], Tensor]
    finish: Callable[[], None] = lambda: None
    validate: Callable[[], dict[str, float | None]] | None = (
        None  # None: no early stopping, the last epoch counts
    )
    metric: str = "log_loss"  # that decides
    patience: int = 0  # epochs without a better one that end the phase; 0: none do
    validate_start: bool = False  # what was there before the first epoch counts too
    after_step: Callable[[float], None] = lambda _: None
    before_step: Callable[[np.ndarray, np.random.Generator], None] = lambda *_: None
    prefetch: Callable[[np.ndarray], None] = lambda _: None


def run_phase(
    phase: Phase, recipe: Recipe, state: TrainingState, checkpoints: Checkpoints, *, log: Any, bar: bool
) -> None:
    """Run a phase to its end, from where `state` and its checkpoint are; leaves the best weights in place.

    `state` changes as it goes on, and a checkpoint is written after each epoch; `log` is a TensorBoard
    `SummaryWriter`, or None.

    Raises:
        SettingError: the loss is no longer a number.
        DataError: the metric is not defined on the validation part.
    """
    groups = [dict(group) for group in phase.groups]  # AdamW changes what it is given
    # Fused: one pass over memory; the many that torch takes otherwise cost a quarter of a step of all layers on a CPU.
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.optimizer.weight_decay, fused=True)
    best: dict[str, Tensor] = {}
    at_once = state.results.setdefault("rows_at_once", {})
    if state.phase == phase.name:
        saved = checkpoints.load()
        if saved is not None and state.epoch > 0:
            restore(phase.modules, select_prefix("model", saved[0]))
            restore_optimizer(optimizer, select_prefix("optimizer", saved[0]))
            best = select_prefix("best", saved[0])
            phase.finish()
    else:
        state.phase, state.epoch, state.best_epoch, state.best_value = phase.name, 0, 0, None
    distributed.broadcast(
        tensor for module in phase.modules.values() for _, tensor in trainable_tensors(module)
    )
    if phase.validate_start and phase.validate is not None and state.epoch == 0 and phase.epochs:
        entry = {"phase": phase.name, "epoch": 0, "steps": 0, **phase.validate()}
        if _record(phase, state, entry):
            best = trainable_state(phase.modules)
    while state.epoch < phase.epochs and not _stopped_early(phase, state):
        entry = _run_epoch(phase, recipe, state.epoch, optimizer, at_once, bar=bar)
        state.epoch += 1
        if _record(phase, state, entry):
            best = trainable_state(phase.modules)
        for name, value in entry.items() if log is not None else ():
            if isinstance(value, float):
                log.add_scalar(f"{phase.name}/{name}", value, entry["epoch"])
        if bar:
            shown = [name for name in ("train_loss", phase.metric) if entry.get(name)]
            metrics = ", ".join(f"{name} {entry[name]:.4f}" for name in shown)
            tqdm.write(f"{phase.name} {state.epoch}/{phase.epochs}: {metrics}", file=sys.stderr)
        if distributed.rank() == 0:
            tensors = {
                **with_prefix("model", trainable_state(phase.modules)),
                **with_prefix("best", best),
                **with_prefix("optimizer", optimizer_tensors(optimizer)),
            }
            checkpoints.save(tensors, state)
    if best and state.best_epoch != state.epoch:
        restore(phase.modules, best)
        phase.finish()


def _run_epoch(
    phase: Phase,
    recipe: Recipe,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    at_once: dict[str, int],
    *,
    bar: bool,
) -> dict[str, Any]:
    phase_number = zlib.crc32(phase.name.encode())
    rng = np.random.default_rng([recipe.seed, phase_number, epoch])
    torch.manual_seed(int(rng.integers(2**31)) + distributed.rank())  # processes drop out different units
    batches = phase.batches(rng)
    total, norms = 0.0, []
    for module in phase.modules.values():
        module.train()
    title = f"{phase.name} {epoch + 1}/{phase.epochs}"
    shown = tqdm(batches, desc=title, disable=not bar or not sys.stderr.isatty(), leave=False)
    for step, rows in enumerate(shown):
        if step + 1 < len(batches):
            phase.prefetch(distributed.shard(batches[step + 1]))
        fraction = (epoch + step / len(batches)) / phase.planned
        rate = learning_rate(fraction, recipe.optimizer.warmup_fraction)
        for group, planned in zip(optimizer.param_groups, phase.groups, strict=True):
            group["lr"] = planned["lr"] * rate
        loss, norm = training_step(
            phase, optimizer, rows, rng, clip_norm=recipe.optimizer.clip_norm, at_once=at_once
        )
        phase.after_step(fraction)
        total += loss * len(rows)
        norms.append(norm)
    for module in phase.modules.values():
        module.eval()
    phase.finish()
    return {
        "phase": phase.name,
        "epoch": epoch + 1,
        "steps": len(batches),
        "train_loss": total / max(sum(len(rows) for rows in batches), 1),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "gradient_norm": float(np.mean(norms)),
        **(phase.validate() if phase.validate is not None else {}),
    }


def training_step(
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    rows: np.ndarray,
    rng: np.random.Generator,
    *,
    clip_norm: float,
    at_once: dict[str, int],
) -> tuple[float, float]:
    """One optimizer step on the batch `rows`: the loss, and the gradient's length before it was clipped.

    Args:
        phase: gives the loss.
        optimizer: of what learns.
        rows: the batch.
        rng: the epoch's generator.
        clip_norm: greatest length of the gradient.
        at_once: rows that were found to fit into memory, by phase; changed where fewer do.

    Raises:
        SettingError: the loss is no longer a number, or not even one row fits into memory.
    """
    phase.before_step(rows, rng)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    value = distributed.all_reduce_gradients(parameters, _backward(phase, parameters, rows, rng, at_once))
    if not math.isfinite(value):
        raise SettingError(f"the loss of phase {phase.name} is {value}; lower the recipe's learning rates")
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    optimizer.step()
    return value, norm


def _backward(
    phase: Phase,
    parameters: Sequence[nn.Parameter],
    rows: np.ndarray,
    rng: np.random.Generator,
    at_once: dict[str, int],
) -> float:
    """Put this process's part of the gradient in place; returns its part of the loss."""
    state = rng.bit_generator.state

    def begin() -> None:
        for parameter in parameters:
            parameter.grad = None

    def part(chosen: np.ndarray) -> float:
        rng.bit_generator.state = state
        loss = phase.loss(chosen, rng) * (len(chosen) / len(rows))
        if torch.isfinite(loss):
            loss.backward()
        return float(loss.detach())

    name = f"rows of phase {phase.name}"
    return sum(in_microbatches(part, distributed.shard(rows), name=name, sizes=at_once, begin=begin), 0.0)


def learning_rate(fraction: float, warmup_fraction: float) -> float:
    """Factor of the full learning rate after a fraction of the steps: linear up, then linear down to 0."""
    if fraction < warmup_fraction:
        return max(fraction / warmup_fraction, 0.01)
    return max((1 - fraction) / (1 - warmup_fraction), 0.0)


def _record(phase: Phase, state: TrainingState, entry: dict[str, Any]) -> bool:
    """Put an epoch on record; True where it is the best so far."""
    state.history.append(entry)
    if phase.validate is None:
        state.best_epoch = state.epoch
        return False
    value = entry[phase.metric]
    if value is None:
        raise DataError(
            f"validation part: {phase.metric} is not defined, as it holds rows of one label only; "
            "choose another validation_fraction or bring more outcomes"
        )
    sign = -1 if phase.metric in LOWER_IS_BETTER else 1
    better = state.best_value is None or sign * value > sign * state.best_value
    if better:
        state.best_value, state.best_epoch = value, state.epoch
    return better


def _stopped_early(phase: Phase, state: TrainingState) -> bool:
    return phase.validate is not None and state.epoch - state.best_epoch >= phase.patience > 0
