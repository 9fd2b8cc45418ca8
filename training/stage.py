"""One stage of a fit: epochs, learning rate, early stopping, checkpoints, log.

An epoch's randomness comes from (seed, stage, epoch) alone, so a run that was killed and resumed
draws what it would have drawn.
"""

import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from expectations.contracts.errors import DataError
from training import ranks
from training.checkpoint import (
    Checkpoints,
    Progress,
    changing,
    learned,
    optimizer_tensors,
    prefixed,
    restore,
    restore_optimizer,
    under,
)
from training.recipe import Recipe
from training.step import take_step

LOWER_IS_BETTER = ("log_loss",)


@dataclass(frozen=True, kw_only=True)
class Stage:
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


def run_stage(
    stage: Stage, recipe: Recipe, progress: Progress, checkpoints: Checkpoints, *, log: Any, bar: bool
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
    at_once = progress.facts.setdefault("rows_at_once", {})
    if progress.stage == stage.name:
        saved = checkpoints.load()
        if saved is not None and progress.epoch > 0:
            restore(stage.modules, under("model", saved[0]))
            restore_optimizer(optimizer, under("optimizer", saved[0]))
            best = under("best", saved[0])
            stage.finish()
    else:
        progress.stage, progress.epoch, progress.best_epoch, progress.best_value = stage.name, 0, 0, None
    ranks.agree(tensor for module in stage.modules.values() for _, tensor in changing(module))
    while progress.epoch < stage.epochs and not _is_stale(stage, recipe, progress):
        entry = _run_epoch(stage, recipe, progress.epoch, optimizer, at_once, bar=bar)
        progress.epoch += 1
        if _note(stage, recipe, progress, entry):
            best = learned(stage.modules)
        _write_log(log, entry)
        if bar:
            figures = [
                f"{name} {entry[name]:.4f}" for name in ("train_loss", recipe.metric) if entry.get(name)
            ]
            tqdm.write(f"{stage.name} {progress.epoch}/{stage.epochs}: {', '.join(figures)}", file=sys.stderr)
        if ranks.rank() == 0:
            tensors = {
                **prefixed("model", learned(stage.modules)),
                **prefixed("best", best),
                **prefixed("optimizer", optimizer_tensors(optimizer)),
            }
            checkpoints.save(tensors, progress)
    if best and progress.best_epoch != progress.epoch:
        restore(stage.modules, best)
        stage.finish()


def _run_epoch(
    stage: Stage,
    recipe: Recipe,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    at_once: dict[str, int],
    *,
    bar: bool,
) -> dict[str, Any]:
    stage_number = zlib.crc32(stage.name.encode())
    rng = np.random.default_rng([recipe.seed, stage_number, epoch])
    torch.manual_seed(int(rng.integers(2**31)) + ranks.rank())  # ranks drop out different units
    batches = stage.batches(rng)
    total, norms = 0.0, []
    for module in stage.modules.values():
        module.train()
    title = f"{stage.name} {epoch + 1}/{stage.epochs}"
    shown = tqdm(batches, desc=title, disable=not bar or not sys.stderr.isatty(), leave=False)
    for step, rows in enumerate(shown):
        share = (epoch + step / len(batches)) / stage.planned
        rate = learning_rate(share, recipe.warmup_share)
        for group, planned in zip(optimizer.param_groups, stage.groups, strict=True):
            group["lr"] = planned["lr"] * rate
        loss, norm = take_step(stage, optimizer, rows, rng, clip_norm=recipe.clip_norm, at_once=at_once)
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


def learning_rate(share: float, warmup_share: float) -> float:
    """Share of the full learning rate after a share of the steps: linear up, then linear down to 0."""
    if share < warmup_share:
        return max(share / warmup_share, 0.01)
    return max((1 - share) / (1 - warmup_share), 0.0)


def _note(stage: Stage, recipe: Recipe, progress: Progress, entry: dict[str, Any]) -> bool:
    """Put an epoch on record; True where it is the best so far."""
    progress.history.append(entry)
    if stage.validate is None:
        progress.best_epoch = progress.epoch
        return False
    value = entry[recipe.metric]
    if value is None:
        raise DataError(
            f"validation part: {recipe.metric} is not defined, as it holds no answered row or no other; "
            "choose another validation_share or bring more outcomes"
        )
    sign = -1 if recipe.metric in LOWER_IS_BETTER else 1
    better = progress.best_value is None or sign * value > sign * progress.best_value
    if better:
        progress.best_value, progress.best_epoch = value, progress.epoch
    return better


def _is_stale(stage: Stage, recipe: Recipe, progress: Progress) -> bool:
    return stage.validate is not None and progress.epoch - progress.best_epoch >= recipe.patience > 0


def _write_log(log: Any, entry: dict[str, Any]) -> None:
    for name, value in entry.items() if log is not None else ():
        if isinstance(value, float):
            log.add_scalar(f"{entry['stage']}/{name}", value, entry["epoch"])
