"""One stage of a fit: epochs, learning rate, early stopping, checkpoints, log.

An epoch's randomness comes from (seed, stage, epoch) alone, so a run that was killed and resumed
draws what it would have drawn.

A step is the gradient of a batch's mean loss, over all ranks, in as many parts as memory needs. A part's mean loss
counts by its share of the batch's rows, so the sum over parts and ranks is the loss of the whole batch, and so is
its gradient. Each part draws what the whole batch would have drawn.
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

SEED_NAMES = {
    "language_pretraining": "domain",
    "next_interaction_pretraining": "purchases",
    "tabular": "past",
    "finetuning": "words",
    "next_interaction_pretraining refit": "purchases again",
    "tabular refit": "past again",
    "finetuning refit": "words again",
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of a run.

    Attributes:
        name: its name in logs and checkpoints.
        modules: the modules that learn or are saved, by name.
        groups: optimizer groups: parameters, `lr`, `weight_decay`.
        planned: epochs that the learning rate is planned for.
        epochs: epochs to run, at most `planned`.
        batches: an epoch's generator -> row numbers of each batch.
        loss: row numbers and the epoch's generator -> mean loss of a batch, or of a part of one.
        finish: called after an epoch and after weights were put back (refreshes vectors).
        stepped: called after each step, its gradients in place, with the share of the steps that were over
            before it.
        draw: called before each step with all its rows and the epoch's generator: draws what must be the same
            for all parts of the batch.
        validate: figures on the validation part, or None: no early stopping, the last epoch counts.
    """

    name: str
    modules: dict[str, nn.Module]
    groups: Sequence[dict[str, Any]]
    planned: int
    epochs: int
    batches: Callable[[np.random.Generator], list[np.ndarray]]
    loss: Callable[[np.ndarray, np.random.Generator], Tensor]
    finish: Callable[[], None]
    validate: Callable[[], dict[str, float | None]] | None
    stepped: Callable[[float], None] | None = None
    draw: Callable[[np.ndarray, np.random.Generator], None] | None = None


def run_phase(
    stage: Phase, recipe: Recipe, progress: TrainingState, checkpoints: Checkpoints, *, log: Any, bar: bool
) -> None:
    """Run a stage to its end, from where `progress` and its checkpoint are; leaves the best weights in place.

    Args:
        stage: what to run.
        recipe: seed, warm-up, clipping, patience and metric.
        progress: changed as the stage goes on.
        checkpoints: written after each epoch.
        log: a TensorBoard `SummaryWriter`, or None.
        bar: whether to show a progress bar.

    Raises:
        SettingError: the loss is no longer a number.
        DataError: the metric is not defined on the validation part.
    """
    optimizer = torch.optim.AdamW([dict(group) for group in stage.groups])  # AdamW changes what it is given
    best: dict[str, Tensor] = {}
    at_once = progress.results.setdefault("rows_at_once", {})
    if progress.phase == stage.name:
        saved = checkpoints.load()
        if saved is not None and progress.epoch > 0:
            restore(stage.modules, select_prefix("model", saved[0]))
            restore_optimizer(optimizer, select_prefix("optimizer", saved[0]))
            best = select_prefix("best", saved[0])
            stage.finish()
    else:
        progress.phase, progress.epoch, progress.best_epoch, progress.best_value = stage.name, 0, 0, None
    distributed.broadcast(
        tensor for module in stage.modules.values() for _, tensor in trainable_tensors(module)
    )
    while progress.epoch < stage.epochs and not _is_stale(stage, recipe, progress):
        entry = _run_epoch(stage, recipe, progress.epoch, optimizer, at_once, bar=bar)
        progress.epoch += 1
        if _note(stage, recipe, progress, entry):
            best = trainable_state(stage.modules)
        _write_log(log, entry)
        if bar:
            figures = [
                f"{name} {entry[name]:.4f}"
                for name in ("train_loss", recipe.early_stopping.metric)
                if entry.get(name)
            ]
            tqdm.write(f"{stage.name} {progress.epoch}/{stage.epochs}: {', '.join(figures)}", file=sys.stderr)
        if distributed.rank() == 0:
            tensors = {
                **with_prefix("model", trainable_state(stage.modules)),
                **with_prefix("best", best),
                **with_prefix("optimizer", optimizer_tensors(optimizer)),
            }
            checkpoints.save(tensors, progress)
    if best and progress.best_epoch != progress.epoch:
        restore(stage.modules, best)
        stage.finish()


def _run_epoch(
    stage: Phase,
    recipe: Recipe,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    at_once: dict[str, int],
    *,
    bar: bool,
) -> dict[str, Any]:
    stage_number = zlib.crc32(SEED_NAMES.get(stage.name, stage.name).encode())
    rng = np.random.default_rng([recipe.seed, stage_number, epoch])
    torch.manual_seed(int(rng.integers(2**31)) + distributed.rank())  # ranks drop out different units
    batches = stage.batches(rng)
    total, norms = 0.0, []
    for module in stage.modules.values():
        module.train()
    title = f"{stage.name} {epoch + 1}/{stage.epochs}"
    shown = tqdm(batches, desc=title, disable=not bar or not sys.stderr.isatty(), leave=False)
    for step, rows in enumerate(shown):
        share = (epoch + step / len(batches)) / stage.planned
        rate = learning_rate(share, recipe.optimizer.warmup_fraction)
        for group, planned in zip(optimizer.param_groups, stage.groups, strict=True):
            group["lr"] = planned["lr"] * rate
        loss, norm = take_step(
            stage, optimizer, rows, rng, clip_norm=recipe.optimizer.clip_norm, sizes=at_once
        )
        if stage.stepped is not None:
            stage.stepped(share)
        total += loss * len(rows)
        norms.append(norm)
    for module in stage.modules.values():
        module.eval()
    stage.finish()
    return {
        "stage": stage.name,
        "epoch": epoch + 1,
        "steps": len(batches),
        "train_loss": total / max(sum(len(rows) for rows in batches), 1),
        "learning_rate": optimizer.param_groups[0]["lr"],
        "gradient_norm": float(np.mean(norms)),
        **(stage.validate() if stage.validate is not None else {}),
    }


def take_step(
    stage: Phase,
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
    value = distributed.all_reduce_gradients(parameters, _backward(stage, parameters, rows, rng, at_once))
    if not math.isfinite(value):
        raise SettingError(f"the loss of stage {stage.name} is {value}; lower the recipe's learning rates")
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    optimizer.step()
    return value, norm


def _backward(
    stage: Phase,
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
    return sum(in_microbatches(part, distributed.shard(rows), name=name, sizes=at_once, begin=begin), 0.0)


def learning_rate(share: float, warmup_share: float) -> float:
    """Share of the full learning rate after a share of the steps: linear up, then linear down to 0."""
    if share < warmup_share:
        return max(share / warmup_share, 0.01)
    return max((1 - share) / (1 - warmup_share), 0.0)


def _note(stage: Phase, recipe: Recipe, progress: TrainingState, entry: dict[str, Any]) -> bool:
    """Put an epoch on record; True where it is the best so far."""
    progress.history.append(entry)
    if stage.validate is None:
        progress.best_epoch = progress.epoch
        return False
    value = entry[recipe.early_stopping.metric]
    if value is None:
        raise DataError(
            f"validation part: {recipe.early_stopping.metric} is not defined, as it holds no answered row or no other; "
            "choose another validation_fraction or bring more outcomes"
        )
    sign = -1 if recipe.early_stopping.metric in LOWER_IS_BETTER else 1
    better = progress.best_value is None or sign * value > sign * progress.best_value
    if better:
        progress.best_value, progress.best_epoch = value, progress.epoch
    return better


def _is_stale(stage: Phase, recipe: Recipe, progress: TrainingState) -> bool:
    return (
        stage.validate is not None
        and progress.epoch - progress.best_epoch >= recipe.early_stopping.patience > 0
    )


def _write_log(log: Any, entry: dict[str, Any]) -> None:
    for name, value in entry.items() if log is not None else ():
        if isinstance(value, float):
            log.add_scalar(f"{entry['stage']}/{name}", value, entry["epoch"])
