"""Fitting: examples and a recipe become a bundle.

What is learned in between, and in which order, is the matter of `training.pipeline.phases`.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from expectations.contracts.bundle import verify_bundle
from expectations.contracts.examples import INTERACTION_HISTORIES, NEXT_INTERACTIONS, ROWS, SCHEMA, TEXTS
from expectations.errors import BundleError, DataError
from expectations.storage.hashes import file_hash, fingerprint
from training.config.recipe import Recipe, recipe_from
from training.data.dataset import Examples, read_examples
from training.data.split import TRAIN, VALIDATION
from training.inference.bundle import FROZEN_MODEL, write_bundle
from training.pipeline.context import FitContext
from training.pipeline.phases import Phases
from training.pipeline.trainer import Phase, run_phase
from training.pipeline.warm_start import Champion, shortened
from training.runtime import distributed
from training.runtime.checkpoint import FROZEN, Checkpoints, TrainingState, select_prefix
from training.runtime.scalar_log import scalar_log


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a fit made: a bundle and its hash."""

    bundle: Path
    hash: str
    metrics: dict[str, Any]  # on the validation part, of the model before the refit
    history: list[dict[str, Any]]  # of each epoch: phase, epoch, steps, train_loss, learning_rate, metrics
    seconds: dict[str, float]  # wall time by phase
    consecutive_warm_starts: int = 0  # fits in a row, this one the last, that began with a champion
    initialization: str = "from scratch"  # with what it began, and where that is not the champion, why


def fit(
    examples: Path,
    recipe: Recipe,
    *,
    out: Path,
    work: Path,
    log_dir: Path,
    champion: Path | None = None,
    parent: Path | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a model.

    Args:
        examples: an examples folder.
        recipe: the settings.
        out: where the bundle's folder is made, named by its hash.
        work: where checkpoints lie; run again with the same, and it goes on.
        log_dir: where TensorBoard's scalars go, where it is installed.
        champion: folder of a bundle to begin with; where it does not fit, that is said, and the fit is from scratch.
        parent: folder of an evaluated bundle of the same recipe: with what it found best on its validation part, all
            known rows are learned from, those of its test part too. It begins as the parent did, with the same champion
            if it did with any. The result is deployed; it cannot be measured.
        progress: whether to show progress bars.

    Raises:
        BundleError: the champion or the parent was altered, or the parent is of another recipe or began otherwise.
        SchemaError, DataError: the examples cannot be learned from.
        SettingError: the recipe does not fit them.
        TransientError: a checkpoint could not be written, or another process of the fit has ended.
    """
    clock = Clock()
    progress = progress and distributed.rank() == 0
    report = tqdm.write if progress else lambda _: None
    data = read_examples(examples, spool=work)
    start, initialization = _usable_champion(champion, data, recipe)
    began_with = start.predictor.hash if start else None
    report(initialization)
    data = start.after(data) if start else data
    check_learnable(data)
    clock.lap("read")
    chosen, parent_hash = _chosen_by(parent, recipe, began_with) if parent else (None, None)
    context = FitContext(data, shortened(recipe) if start else recipe, start, parent)
    clock.lap("texts")
    key = fingerprint(recipe.as_dict(), example_hashes(examples), torch.__version__, began_with, parent_hash)
    checkpoints = Checkpoints(work, key)
    tensors, state = checkpoints.load() or ({}, TrainingState(phase=""))
    for prefix, carried in checkpoints.carried.items():
        carried.update(select_prefix(prefix, tensors))
    if parent and not checkpoints.carried[FROZEN]:
        checkpoints.carried[FROZEN].update(load_file(parent / FROZEN_MODEL))
    with scalar_log(log_dir) if distributed.rank() == 0 else nullcontext() as log:

        def train(phase: Phase) -> None:
            run_phase(phase, context.recipe, state, checkpoints, log=log, bar=progress)
            clock.lap(phase.name)

        Phases(context, state, train, *checkpoints.carried.values(), report=report, lap=clock.lap).run_all(
            chosen
        )
    consecutive_warm_starts = start.consecutive_warm_starts + 1 if start else 0
    metrics = chosen or state.results["metrics"]
    folder, digest = distributed.broadcast_object(
        lambda: write_bundle(
            out,
            recipe=recipe,
            data=data,
            model=context.model,
            table=context.table,
            transforms=context.transforms,
            pretrained_vectors=context.pretrained_vectors,
            frozen_model=checkpoints.carried[FROZEN],
            metrics=metrics,
            champion=began_with,
            parent=parent_hash,
            consecutive_warm_starts=consecutive_warm_starts,
        )
    )
    checkpoints.remove()
    clock.lap("bundle")
    return FitResult(
        bundle=folder,
        hash=digest,
        metrics=metrics,
        history=state.history,
        seconds=clock.laps,
        consecutive_warm_starts=consecutive_warm_starts,
        initialization=initialization,
    )


def _chosen_by(parent: Path, recipe: Recipe, began_with: str | None) -> tuple[dict[str, Any], str]:
    """What an evaluated bundle found best, with its metrics on the validation part; and its hash.

    That holds for the beginning that it had, from scratch or from a champion.
    """
    manifest, digest = verify_bundle(parent)
    if recipe_from(dict(manifest.recipe), where=f"{parent}/manifest.json") != recipe:
        raise BundleError(f"{parent} is of another recipe; fit with the recipe of its recipe.json")
    if manifest.champion != began_with:
        raise BundleError(
            f"{parent} began {_beginning(manifest.champion)}, this fit would begin {_beginning(began_with)}; "
            "train it again"
        )
    return dict(manifest.metrics), digest


def _beginning(champion: str | None) -> str:
    return f"from champion {champion[:12]}" if champion else "from scratch"


def _usable_champion(folder: Path | None, data: Examples, recipe: Recipe) -> tuple[Champion | None, str]:
    """The champion, if there is one and a fit can begin with it; and which it is, or why not."""
    if folder is None:
        return None, _beginning(None)
    found = Champion.load(folder)
    problem = found if isinstance(found, str) else found.incompatibility(data, recipe)
    if isinstance(found, str) or problem is not None:
        return None, f"from scratch, not from champion {folder.name[:12]}: {problem}"
    number, most = found.consecutive_warm_starts + 1, recipe.warm_start.max_consecutive
    return found, f"{_beginning(found.predictor.hash)}, warm start {number} of {most}"


def example_hashes(examples: Path) -> list[str]:
    """SHA-256 of each file of an examples folder: another one's checkpoint or search is not gone on with."""
    files = [examples / name for name in (ROWS, INTERACTION_HISTORIES, TEXTS, SCHEMA, NEXT_INTERACTIONS)]
    return [file_hash(path) for path in files if path.exists()]


class Clock:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a phase."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 2)
        self._last = now


def check_learnable(data: Examples) -> None:
    """Refuse examples whose training or validation part has one label only.

    Raises:
        DataError: it has.
    """
    for part in (TRAIN, VALIDATION):
        labels = data.columns["label"][data.part == part]
        num_positive = int((labels > 0).sum())
        if num_positive == 0 or not (labels < 1).any():
            raise DataError(
                f"examples: of the {len(labels)} rows of the {part} part, {num_positive} are positive; a model "
                "learns from both labels: bring more outcomes or move test_from"
            )
