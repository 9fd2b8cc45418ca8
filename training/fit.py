"""Fitting: examples and a recipe become a bundle.

Four stages, each resumable after any epoch:

1. `past`: g alone on the training part, stopped early; cheap, and the words then only learn what it cannot
say 2. `words`: f and g together, the language model's upper layers among them, stopped early
3. `past again`, 4. `words again` (recipe `refit`): the same from the start on train + validation, for the
   numbers of epochs that were best: the latest answers are the nearest to the future

Figures and calibration come from the stopped model of stage 2; the bundle holds that of stage 4.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expectations.contracts.errors import DataError
from expectations.contracts.examples import HISTORIES, ROWS, SCHEMA, TEXTS
from expectations.contracts.landing import file_hash, fingerprint
from training.batches import Assembler, drawn_rows, tabular_batches, text_batches
from training.bundle import write_bundle
from training.calibration import fit_calibration
from training.checkpoint import Checkpoints, Progress, learned, restore
from training.course import Stage, run_stage
from training.encoder import TextEncoder
from training.examples import Examples, read_examples
from training.metrics import ranking_figures
from training.model import AdditiveModel, build_model
from training.recipe import Recipe
from training.scoring import score_rows
from training.split import TRAIN, VALIDATION
from training.texts import TextTable
from training.transforms import fit_transforms

PAST, WORDS, PAST_AGAIN, WORDS_AGAIN = "past", "words", "past again", "words again"
ORDER = (PAST, WORDS, PAST_AGAIN, WORDS_AGAIN)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a fit made.

    Attributes:
        bundle: the bundle's folder.
        hash: the bundle's hash.
        metrics: figures on the validation part, of the model before the refit.
        history: one entry for each epoch: stage, epoch, train_loss, learning_rate, figures.
        seconds: wall time by step.
    """

    bundle: Path
    hash: str
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: dict[str, float]


def fit(
    examples: Path, recipe: Recipe, *, out: Path, work: Path, log_dir: Path, progress: bool = True
) -> FitResult:
    """Train a model.

    Args:
        examples: an examples folder.
        recipe: the settings.
        out: where the bundle's folder is made, named by its hash.
        work: where checkpoints lie; run again with the same, and it goes on.
        log_dir: where TensorBoard's scalars go.
        progress: whether to show progress bars.

    Raises:
        SchemaError, DataError: the examples cannot be learned from.
        SettingError: the recipe does not fit them.
        TransientError: a checkpoint could not be written.
    """
    from torch.utils.tensorboard import SummaryWriter  # its import takes a second

    clock = Clock()
    data = read_examples(examples)
    _check_learnable(data)
    clock.lap("read")
    run = Run(data, recipe)
    clock.lap("texts")
    hashes = [file_hash(examples / name) for name in (ROWS, HISTORIES, TEXTS, SCHEMA)]
    checkpoints = Checkpoints(work, fingerprint(recipe.as_dict(), hashes, torch.__version__))
    saved = checkpoints.load()
    state = saved[1] if saved is not None else Progress(stage="")
    with SummaryWriter(str(log_dir)) as log:

        def go(stage: Stage) -> None:
            run_stage(stage, recipe, state, checkpoints, log=log, bar=progress)

        _run_all(run, state, clock, go)
    folder, digest = write_bundle(
        out,
        recipe=recipe,
        data=data,
        model=run.model,
        table=run.table,
        transforms=run.transforms,
        metrics=state.facts["metrics"],
    )
    checkpoints.remove()
    clock.lap("bundle")
    return FitResult(
        bundle=folder, hash=digest, metrics=state.facts["metrics"], history=state.history, seconds=clock.laps
    )


class Clock:
    """Wall time by step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a step."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 2)
        self._last = now


class Run:
    """The data, texts and modules of one fit.

    Args:
        data: the examples.
        recipe: the settings.
    """

    def __init__(self, data: Examples, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.labels = data.labels
        self.train = np.flatnonzero(data.part == TRAIN)
        self.validation = np.flatnonzero(data.part == VALIDATION)
        schema = data.schema
        self.transforms = fit_transforms(
            data.rows.iloc[self.train],
            numeric=schema.numeric,
            categorical=schema.categorical,
            bins=recipe.bins,
        )
        self.assembler = Assembler(data, self.transforms)
        self.encoder = TextEncoder.load(
            recipe.encoder, max_tokens=recipe.max_tokens, trainable_layers=recipe.trainable_layers
        ).to(self.device)
        self.pretrained = learned({"encoder": self.encoder})
        self.table = TextTable(self.encoder, data.texts, batch=recipe.encode_batch, device=self.device)
        self.table.prepare()
        self.model = self.fresh_model()

    def fresh_model(self) -> AdditiveModel:
        """New f and g, and the language model as it was pretrained."""
        torch.manual_seed(self.recipe.seed)
        restore({"encoder": self.encoder}, self.pretrained)
        self.encoder.eval()
        self.table.refresh()
        rate = float(self.labels[self.train].mean())
        model = build_model(self.recipe, self.transforms, text_width=self.encoder.width, base_rate=rate)
        return model.to(self.device).eval()

    def past_stage(self, name: str, rows: np.ndarray, *, epochs: int, validate: bool) -> Stage:
        """The stage that trains g alone."""
        recipe, tabular = self.recipe, self.model.tabular

        def batches(rng: np.random.Generator) -> list[np.ndarray]:
            drawn = drawn_rows(self.labels, rows, recipe.tabular_negatives, rng)
            return tabular_batches(drawn, recipe.tabular_batch)

        def loss(chosen: np.ndarray, _rng: np.random.Generator) -> Tensor:
            index = torch.from_numpy(chosen)
            numbers = self.assembler.numbers[index].to(self.device)
            logits = tabular(numbers, self.assembler.codes[index].to(self.device))
            return self._loss(logits, chosen, recipe.tabular_negatives)

        rates = {"lr": recipe.tabular_learning_rate, "weight_decay": recipe.tabular_weight_decay}
        return Stage(
            name=name,
            modules={"tabular": tabular},
            groups=[{"params": list(tabular.parameters()), **rates}],
            planned=max(recipe.tabular_epochs, 1),
            epochs=epochs,
            batches=batches,
            loss=loss,
            finish=lambda: None,
            validate=(lambda: self.figures(past_only=True)) if validate else None,
        )

    def words_stage(self, name: str, rows: np.ndarray, *, epochs: int, validate: bool) -> Stage:
        """The stage that trains f and g together."""
        recipe = self.recipe

        def batches(rng: np.random.Generator) -> list[np.ndarray]:
            drawn = drawn_rows(self.labels, rows, recipe.negatives, rng)
            texts = recipe.texts_per_step
            text_id, size = self.assembler.text_id, recipe.max_rows_per_step
            return text_batches(drawn, text_id, num_texts=texts, size=size, rng=rng)

        return Stage(
            name=name,
            modules={"model": self.model, "encoder": self.encoder},
            groups=self._groups(),
            planned=max(recipe.epochs, 1),
            epochs=epochs,
            batches=batches,
            loss=self._words_loss,
            finish=self.table.refresh if self.encoder.learns else (lambda: None),
            validate=self.figures if validate else None,
        )

    def _words_loss(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        recipe = self.recipe
        batch, text_ids = self.assembler.batch(rows)
        candidates = np.unique(self.assembler.text_id[rows])
        others = np.setdiff1d(text_ids, candidates, assume_unique=True)
        sample = rng.choice(others, min(recipe.history_texts_per_step, len(others)), replace=False)
        cuda = torch.autocast("cuda", dtype=torch.bfloat16) if self.device == "cuda" else nullcontext()
        with cuda:
            vectors = self.table.mixed(text_ids, np.concatenate([candidates, sample]))
            f_N, g_NK = self.model(batch.to(self.device), vectors.float())
        return self._loss(f_N[:, None].float() + g_NK.float(), rows, recipe.negatives)

    def _loss(self, logits_NK: Tensor, rows: np.ndarray, share: float) -> Tensor:
        """Mean binary cross-entropy of every member, for rows whose negatives were drawn."""
        labels = torch.from_numpy(self.labels[rows]).to(self.device)[:, None].expand_as(logits_NK)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits_NK - float(np.log(share)), labels)

    def _groups(self) -> list[dict[str, Any]]:
        recipe, decay = self.recipe, {"weight_decay": self.recipe.weight_decay}
        reading = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        groups = [
            {"params": list(self.model.words.parameters()), "lr": recipe.learning_rate_head, **decay},
            {"params": list(self.model.tabular.parameters()), "lr": recipe.learning_rate_tabular, **decay},
        ]
        return (
            [*groups, {"params": reading, "lr": recipe.learning_rate_encoder, **decay}] if reading else groups
        )

    def figures(self, *, past_only: bool = False) -> dict[str, float | None]:
        """Figures on the validation part, of g alone or of f + g."""
        logit, _ = self.validation_logits(past_only=past_only)
        rows = self.validation
        lists = self.data.rows["list_id"].to_numpy()[rows]
        return ranking_figures(self.labels[rows], logit, lists)

    def validation_logits(self, *, past_only: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the validation part and its labels."""
        scores = score_rows(
            self.model, self.assembler, self.table.vectors, self.validation, past_only=past_only
        )
        return scores.f + scores.g, self.labels[self.validation]


def _run_all(run: Run, state: Progress, clock: Clock, go: Callable[[Stage], None]) -> None:
    """Run the stages that are left, in order."""
    recipe, facts = run.recipe, state.facts
    begun = ORDER.index(state.stage) if state.stage in ORDER else 0
    if begun <= ORDER.index(WORDS):
        _search(run, state, clock, go, resumed=state.stage == WORDS)
    if not recipe.refit:
        _set_calibration(run, facts)
        return
    known = np.concatenate([run.train, run.validation])
    run.model = run.fresh_model()
    if state.stage != WORDS_AGAIN:
        go(run.past_stage(PAST_AGAIN, known, epochs=facts["past_epochs"], validate=False))
    go(run.words_stage(WORDS_AGAIN, known, epochs=facts["words_epochs"], validate=False))
    _set_calibration(run, facts)
    clock.lap("refit")


def _search(
    run: Run,
    state: Progress,
    clock: Clock,
    go: Callable[[Stage], None],
    *,
    resumed: bool,
) -> None:
    """Stages 1 and 2, and what they found: epochs, figures, calibration."""
    recipe, facts = run.recipe, state.facts
    if not resumed:
        go(run.past_stage(PAST, run.train, epochs=recipe.tabular_epochs, validate=True))
        facts["past_epochs"] = state.best_epoch
        clock.lap("past")
    go(run.words_stage(WORDS, run.train, epochs=recipe.epochs, validate=True))
    facts["words_epochs"] = state.best_epoch
    logits, labels = run.validation_logits()
    slope, shift = fit_calibration(logits, labels) if recipe.calibrate else (1.0, 0.0)
    facts["calibration"] = [slope, shift]
    lists = run.data.rows["list_id"].to_numpy()[run.validation]
    facts["metrics"] = ranking_figures(labels, slope * logits + shift, lists)
    clock.lap("words")


def _set_calibration(run: Run, facts: dict[str, Any]) -> None:
    slope, shift = facts["calibration"]
    run.model.slope.fill_(slope)
    run.model.shift.fill_(shift)


def _check_learnable(data: Examples) -> None:
    for part in (TRAIN, VALIDATION):
        labels = data.labels[data.part == part]
        answered = int(labels.sum())
        if answered == 0 or answered == len(labels):
            raise DataError(
                f"examples: of the {len(labels)} rows of the {part} part, {answered} have an answer; a model "
                "learns from both kinds: bring more outcomes or move test_from"
            )
