"""The course of a fit: its stages in order, from where it was left.

Stages, each resumable after any epoch; all but the first once more (recipe `refit`):

0. `domain`: the language model alone learns the language of the texts; left out by default (`training.language.pretraining`)
1. `purchases`: f learns from what shoppers turned to after earlier moments; skipped without futures
2. `past`: g on the training part, stopped early; then the scales of f's parts beside it, by the validation part
3. `words`: f and g together, the language model's upper layers among them, stopped early
4. `purchases again`, `past again`, `words again`: from what `domain` left, on train + validation, for the
   numbers of epochs that were best: the latest answers are the nearest to the future

Futures that were not over when the next part began are left out, of the search as of the refit.
Figures and calibration come from the stopped model of stage 3; the bundle holds that of the last stage. Of a
validation part with more than 262,144 rows, whole lists with about so many are measured.

A fit may begin with a champion (`training.pipeline.warm_start`): then neither language nor purchases are learned again, a
share of the epochs is run, and where the training part holds nothing that the champion has not learned from,
stages 2 and 3 only choose the scales and measure: what is new is learned in stage 4.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from training.data.split import TEST, VALIDATION
from training.models.boosted_trees import loaded_lightgbm
from training.models.calibration import fit_calibration
from training.pipeline.context import Run
from training.pipeline.language_pretraining import domain_stage, known_text_ids
from training.pipeline.trainer import Stage
from training.runtime.checkpoint import Progress, learned

DOMAIN, PURCHASES, PAST, WORDS = "domain", "purchases", "past", "words"
AGAIN = " again"
ORDER = (DOMAIN, PURCHASES, PAST, WORDS, PURCHASES + AGAIN, PAST + AGAIN, WORDS + AGAIN)


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
        if run.recipe.tabular_model.tree_weight > 0 and loaded_lightgbm() is None:
            self.tell("g is without trees: they need LightGBM (pip install lightgbm)")
        self._domain()
        if self._begun() <= ORDER.index(WORDS):
            self._three("", run.train, before=VALIDATION)
            self._find()
        if run.recipe.early_stopping.refit:
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
            epochs = self._search_epochs(recipe.tabular_model.epochs) if search else facts["past_epochs"]
            self.go(run.past_stage(PAST + again, rows, epochs=epochs, validate=search))
            if search:
                facts["past_epochs"] = self.state.best_epoch or recipe.tabular_model.epochs
            if epochs or not search:
                run.grow_trees(rows)
            if search:
                facts["scales"] = run.best_scales() if facts[learned] else (1.0, 1.0)
            run.scale_words(*facts["scales"])
        if run.champion:
            rows = run.champion.rehearsed(run.data, rows, recipe.seed)
        epochs = self._search_epochs(recipe.finetuning.epochs) if search else facts["words_epochs"]
        self.go(run.words_stage(WORDS + again, rows, epochs=epochs, validate=search))
        if search:
            facts["words_epochs"] = self.state.best_epoch or recipe.finetuning.epochs

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
        scores, judge = run.validation_scores(), run.judge
        logits = scores.f + scores.g
        slope, shift = fit_calibration(logits, judge.labels) if run.recipe.calibration.enabled else (1.0, 0.0)
        facts["calibration"] = [slope, shift]
        skipped = not facts["learned"]
        facts["metrics"] = {
            **judge.figures(slope * logits + shift),
            **judge.alone(scores),
            "match_scale": facts["scales"][0],
            "appeal_scale": facts["scales"][1],
            "num_futures": 0 if skipped else len(run.futures_before(VALIDATION)),
        }
