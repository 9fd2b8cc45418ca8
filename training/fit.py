"""Fitting: examples and a recipe become a bundle.

Stages, each resumable after any epoch; all but the first once more (recipe `refit`):

0. `domain`: the language model alone learns the language of the texts; left out by default (`training.domain`)
1. `purchases`: f learns from what shoppers turned to after earlier moments; skipped without futures
2. `past`: g on the training part, stopped early; then the scale of f beside it, by the validation part
3. `words`: f and g together, the language model's upper layers among them, stopped early
4. `purchases again`, `past again`, `words again`: from what `domain` left, on train + validation, for the
   numbers of epochs that were best: the latest answers are the nearest to the future

Futures that were not over when the next part began are left out, of the search as of the refit.
Figures and calibration come from the stopped model of stage 3; the bundle holds that of the last stage. Of a
validation part with more than 262,144 rows, whole lists with about so many are measured.

A fit may begin with a champion (`training.warm`): then neither language nor purchases are learned again, a
share of the epochs is run, and where the training part holds nothing that the champion has not learned from,
stages 2 and 3 only choose the scale and measure: what is new is learned in stage 4.
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
from tqdm import tqdm

from expectations.contracts.errors import DataError
from expectations.contracts.examples import FUTURES, HISTORIES, ROWS, SCHEMA, TEXTS
from expectations.contracts.landing import file_hash, fingerprint
from training import ranks
from training.bundle import write_bundle
from training.calibration import fit_calibration
from training.checkpoint import Checkpoints, Progress, learned, under
from training.course import Stage, run_stage
from training.domain import domain_stage, known_text_ids
from training.examples import Examples, read_examples
from training.metrics import ranking_figures
from training.recipe import Recipe
from training.run import Run
from training.split import TEST, TRAIN, VALIDATION
from training.warm import Champion, shortened

DOMAIN, PURCHASES, PAST, WORDS = "domain", "purchases", "past", "words"
AGAIN = " again"
ORDER = (DOMAIN, PURCHASES, PAST, WORDS, PURCHASES + AGAIN, PAST + AGAIN, WORDS + AGAIN)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a fit made.

    Attributes:
        bundle: the bundle's folder.
        hash: the bundle's hash.
        metrics: figures on the validation part, of the model before the refit.
        history: one entry for each epoch: stage, epoch, steps, train_loss, learning_rate, figures.
        seconds: wall time by step.
        warm_starts: how many fits in a row, this one the last of them, began with a champion; 0: from scratch.
        start: with what it began, and where that is not the champion, why.
    """

    bundle: Path
    hash: str
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    warm_starts: int = 0
    start: str = "from scratch"


def fit(
    examples: Path,
    recipe: Recipe,
    *,
    out: Path,
    work: Path,
    log_dir: Path,
    champion: Path | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a model.

    Args:
        examples: an examples folder.
        recipe: the settings.
        out: where the bundle's folder is made, named by its hash.
        work: where checkpoints lie; run again with the same, and it goes on.
        log_dir: where TensorBoard's scalars go.
        champion: folder of a bundle to begin with; where it does not fit, that is said, and the fit is from scratch.
        progress: whether to show progress bars.

    Raises:
        BundleError: the champion was altered.
        SchemaError, DataError: the examples cannot be learned from.
        SettingError: the recipe does not fit them.
        TransientError: a checkpoint could not be written, or another process of the run has ended.
    """
    from torch.utils.tensorboard import SummaryWriter  # its import takes a second

    clock = Clock()
    progress = progress and ranks.rank() == 0
    tell = tqdm.write if progress else lambda _: None
    data = read_examples(examples, spool=work)
    start, said = _start(champion, data, recipe)
    tell(said)
    data = start.after(data) if start else data
    check_learnable(data)
    clock.lap("read")
    run = Run(data, shortened(recipe) if start else recipe, start)
    clock.lap("texts")
    files = [examples / name for name in (ROWS, HISTORIES, TEXTS, SCHEMA, FUTURES)]
    hashes = [file_hash(path) for path in files if path.exists()]
    checkpoints = Checkpoints(
        work, fingerprint(recipe.as_dict(), hashes, torch.__version__, start and start.hash)
    )
    saved = checkpoints.load()
    state = saved[1] if saved is not None else Progress(stage="")
    checkpoints.kept.update(under("kept", saved[0]) if saved is not None else {})
    with SummaryWriter(str(log_dir)) if ranks.rank() == 0 else nullcontext() as log:

        def go(stage: Stage) -> None:
            run_stage(stage, run.recipe, state, checkpoints, log=log, bar=progress)
            clock.lap(stage.name)

        course = Course(run, state, go, checkpoints.kept, tell=tell)
        course.run_all()
    warm_starts = start.warm_starts + 1 if start else 0
    folder, digest = ranks.told(
        lambda: write_bundle(
            out,
            recipe=recipe,
            data=data,
            model=run.model,
            table=run.table,
            transforms=run.transforms,
            before=run.pretrained_vectors,
            metrics=state.facts["metrics"],
            champion=start.hash if start else None,
            warm_starts=warm_starts,
        )
    )
    checkpoints.remove()
    clock.lap("bundle")
    return FitResult(
        bundle=folder,
        hash=digest,
        metrics=state.facts["metrics"],
        history=state.history,
        seconds=clock.laps,
        warm_starts=warm_starts,
        start=said,
    )


def _start(folder: Path | None, data: Examples, recipe: Recipe) -> tuple[Champion | None, str]:
    """The champion, if there is one and a fit can begin with it; and which it is, or why not."""
    if folder is None:
        return None, "from scratch"
    found = Champion.load(folder)
    problem = found if isinstance(found, str) else found.misfit(data, recipe)
    if isinstance(found, str) or problem is not None:
        return None, f"from scratch, not from champion {folder.name[:12]}: {problem}"
    return (
        found,
        f"from champion {found.hash[:12]}, warm start {found.warm_starts + 1} of {recipe.warm_starts}",
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


class Course:
    """The stages in order, from where `state` is.

    Args:
        run: data and modules.
        state: changed as stages end.
        go: runs one stage.
        kept: what the domain stage left, by name; filled when it ends, and kept in every later checkpoint.
        tell: says one line to who watches.
    """

    def __init__(
        self,
        run: Run,
        state: Progress,
        go: Callable[[Stage], None],
        kept: dict[str, Tensor],
        *,
        tell: Callable[[str], None],
    ) -> None:
        self.run, self.state, self.go, self.kept, self.tell = run, state, go, kept, tell
        self.facts = state.facts

    def run_all(self) -> None:
        """Run the stages that are left; leaves the model of the last in place."""
        run, facts = self.run, self.facts
        self._domain()
        if self._begun() <= ORDER.index(WORDS):
            self._three("", run.train, before=VALIDATION)
            self._find()
        if run.recipe.refit:
            run.model = run.fresh_model()
            known = np.concatenate([run.train, run.validation])
            self._three(AGAIN, known, before=TEST)
        slope, shift = facts["calibration"]
        run.model.slope.fill_(slope)
        run.model.shift.fill_(shift)

    def _begun(self) -> int:
        return ORDER.index(self.state.stage) if self.state.stage in ORDER else 0

    def _domain(self) -> None:
        """Learn the language of the texts, or take what was learned of it. A champion has learned it already."""
        run = self.run
        if self._begun() == ORDER.index(DOMAIN) and not run.champion:
            stage = domain_stage(DOMAIN, run.recipe, run.encoder, run.table, known_text_ids(run.data))
            if stage is None:
                return
            self.go(stage)
            self.kept.update(learned({"encoder": run.encoder}))
        if self.kept:
            run.begin_with(dict(self.kept))

    def _three(self, again: str, rows: np.ndarray, *, before: str) -> None:
        """Purchases, past and words; what is over is not run again."""
        run, facts, recipe = self.run, self.facts, self.run.recipe
        search, learned = not again, f"learned{again}"
        if self._begun() <= ORDER.index(PURCHASES + again):
            facts[learned] = self._purchases(again, before)
        elif facts[learned]:
            run.settle_words()
        if self._begun() <= ORDER.index(PAST + again):
            epochs = self._search_epochs(recipe.tabular_epochs) if search else facts["past_epochs"]
            self.go(run.past_stage(PAST + again, rows, epochs=epochs, validate=search))
            if search:
                facts["past_epochs"] = self.state.best_epoch or recipe.tabular_epochs
            if (epochs or not search) and not run.grow_trees(rows):
                self.tell("g is without trees: they need LightGBM (pip install lightgbm)")
            if search:
                facts["scale"] = run.best_scale() if facts[learned] else 1.0
            with torch.no_grad():
                run.model.words.scale.fill_(facts["scale"])
        if run.champion:
            rows = run.champion.rehearsed(run.data, rows, recipe.seed)
        epochs = self._search_epochs(recipe.epochs) if search else facts["words_epochs"]
        self.go(run.words_stage(WORDS + again, rows, epochs=epochs, validate=search))
        if search:
            facts["words_epochs"] = self.state.best_epoch or recipe.epochs

    def _search_epochs(self, planned: int) -> int:
        """Epochs on the training part: none where a champion has learned from all of it."""
        champion = self.run.champion
        return planned if champion is None or champion.has_new(self.run.data) else 0

    def _purchases(self, again: str, before: str) -> bool:
        """Learn f from purchases; False where there are none. A champion has learned from them already."""
        if self.run.champion:
            return self.run.champion.knows_purchases
        stage = self.run.purchases_stage(PURCHASES + again, before=before)
        if stage is None:
            self.tell(f"{PURCHASES}{again}: skipped, no futures to learn from")
            return False
        self.go(stage)
        self.run.settle_words()
        return True

    def _find(self) -> None:
        """Calibration and figures, from the validation part."""
        run, facts = self.run, self.facts
        scores, labels = run.validation_scores(), run.answers(run.judged)
        logits = scores.f + scores.g
        slope, shift = fit_calibration(logits, labels) if run.recipe.calibrate else (1.0, 0.0)
        facts["calibration"] = [slope, shift]
        lists = run.data.columns.at("list_id", run.judged)
        skipped = not facts["learned"]
        facts["metrics"] = {
            **ranking_figures(labels, slope * logits + shift, lists),
            **run.alone(scores),
            "f_scale": facts["scale"],
            "num_futures": 0 if skipped else len(run.futures_before(VALIDATION)),
        }


def check_learnable(data: Examples) -> None:
    """Refuse examples whose training or validation part has one kind of answer only.

    Raises:
        DataError: it has.
    """
    for part in (TRAIN, VALIDATION):
        labels = data.columns["label"][data.part == part]
        answered = int(labels.sum())
        if answered == 0 or answered == len(labels):
            raise DataError(
                f"examples: of the {len(labels)} rows of the {part} part, {answered} have an answer; a model "
                "learns from both kinds: bring more outcomes or move test_from"
            )
