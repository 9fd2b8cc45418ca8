"""The phases of a fit in order, from where it was left.

Each is resumable after any epoch, and all but the first run once more (`early_stopping.refit`):

0. `language_pretraining`: the language model alone learns the language of the texts; left out by default
1. `next_interaction_pretraining`: f learns users' next interactions after earlier times; skipped without them
2. `tabular`: g on the training part, stopped early; then the scales of f's parts beside it, by the validation part
3. `finetuning`: f and g together, the language model's upper layers among them, stopped early
4. `… refit`: phases 1 to 3 from what phase 0 left, on train + validation, for the numbers of epochs that were
   best: the latest labels are the nearest to the future

Next interactions whose window had not ended when the next part began are left out, of the search as of the refit.
Metrics and calibration come from the stopped model of phase 3; the bundle holds that of the last phase. Of a
validation part with more than 262,144 rows, whole query groups with about so many are measured.

A fit may begin with a champion (`training.pipeline.warm_start`): then neither language nor next interactions are
learned again, a fraction of the epochs is run, and where the training part holds nothing that the champion has not
learned from, phases 2 and 3 only choose the scales and measure: what is new is learned in phase 4.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from training.data.split import TEST, VALIDATION
from training.models.boosted_trees import import_lightgbm
from training.models.calibration import fit_calibration
from training.pipeline.context import FitContext
from training.pipeline.language_pretraining import known_text_ids, language_pretraining_phase
from training.pipeline.trainer import Phase
from training.runtime.checkpoint import TrainingState, trainable_state

LANGUAGE_PRETRAINING, NEXT_INTERACTION_PRETRAINING = "language_pretraining", "next_interaction_pretraining"
TABULAR, FINETUNING = "tabular", "finetuning"
REFIT = " refit"
ORDER = (
    LANGUAGE_PRETRAINING,
    NEXT_INTERACTION_PRETRAINING,
    TABULAR,
    FINETUNING,
    NEXT_INTERACTION_PRETRAINING + REFIT,
    TABULAR + REFIT,
    FINETUNING + REFIT,
)


class Phases:
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
        run: FitContext,
        state: TrainingState,
        go: Callable[[Phase], None],
        kept: dict[str, Tensor],
        *,
        tell: Callable[[str], None],
    ) -> None:
        self.run, self.state, self.go, self.kept, self.tell = run, state, go, kept, tell
        self.facts = state.results

    def run_all(self) -> None:
        """Run the stages that are left; leaves the model of the last in place."""
        run, facts = self.run, self.facts
        if run.recipe.tabular_model.tree_weight > 0 and import_lightgbm() is None:
            self.tell("g is without trees: they need LightGBM (pip install lightgbm)")
        self._domain()
        if self._begun() <= ORDER.index(FINETUNING):
            self._three("", run.train, before=VALIDATION)
            self._find()
        if run.recipe.early_stopping.refit:
            run.model = run.fresh_model()
            known = np.concatenate([run.train, run.validation])
            self._three(REFIT, known, before=TEST)
        slope, shift = facts["calibration"]
        run.model.slope.fill_(slope)
        run.model.intercept.fill_(shift)

    def _begun(self) -> int:
        return ORDER.index(self.state.phase) if self.state.phase in ORDER else 0

    def _domain(self) -> None:
        """Learn the language of the texts, or take what was learned of it. A champion has learned it already."""
        run = self.run
        if self._begun() == ORDER.index(LANGUAGE_PRETRAINING) and not run.champion:
            stage = language_pretraining_phase(
                LANGUAGE_PRETRAINING, run.recipe, run.encoder, run.table, known_text_ids(run.data)
            )
            if stage is None:
                return
            self.go(stage)
            self.kept.update(trainable_state({"encoder": run.encoder}))
        if self.kept:
            run.begin_with(dict(self.kept))

    def _three(self, refit: str, rows: np.ndarray, *, before: str) -> None:
        """Purchases, past and words; what is over is not run again."""
        run, facts, recipe = self.run, self.facts, self.run.recipe
        search, learned = not refit, f"learned{refit}"
        if self._begun() <= ORDER.index(NEXT_INTERACTION_PRETRAINING + refit):
            facts[learned] = self._purchases(refit, before)
        elif facts[learned]:
            run.settle_words()
        if self._begun() <= ORDER.index(TABULAR + refit):
            epochs = self._search_epochs(recipe.tabular_model.epochs) if search else facts["tabular_epochs"]
            self.go(run.tabular_phase(TABULAR + refit, rows, epochs=epochs, validate=search))
            if search:
                facts["tabular_epochs"] = self.state.best_epoch or recipe.tabular_model.epochs
            if epochs or not search:
                run.grow_trees(rows)
            if search:
                facts["scales"] = run.best_scales() if facts[learned] else (1.0, 1.0)
            run.scale_words(*facts["scales"])
        if run.champion:
            rows = run.champion.rehearsed(run.data, rows, recipe.seed)
        epochs = self._search_epochs(recipe.finetuning.epochs) if search else facts["finetuning_epochs"]
        self.go(run.finetuning_phase(FINETUNING + refit, rows, epochs=epochs, validate=search))
        if search:
            facts["finetuning_epochs"] = self.state.best_epoch or recipe.finetuning.epochs

    def _search_epochs(self, planned: int) -> int:
        """Epochs on the training part: none where a champion has learned from all of it."""
        champion = self.run.champion
        return planned if champion is None or champion.has_new(self.run.data) else 0

    def _purchases(self, refit: str, before: str) -> bool:
        """Learn f from purchases; False where there are none. A champion has learned from them already."""
        if self.run.champion:
            return self.run.champion.knows_purchases
        stage = self.run.next_interaction_phase(NEXT_INTERACTION_PRETRAINING + refit, before=before)
        if stage is None:
            self.tell(f"{NEXT_INTERACTION_PRETRAINING}{refit}: skipped, no futures to learn from")
            return False
        self.go(stage)
        self.run.settle_words()
        return True

    def _find(self) -> None:
        """Calibration and figures, from the validation part."""
        run, facts = self.run, self.facts
        scores, validation_metrics = run.validation_scores(), run.validation_metrics
        logits = scores.text_logit + scores.tabular_logit
        slope, shift = (
            fit_calibration(logits, validation_metrics.labels)
            if run.recipe.calibration.enabled
            else (1.0, 0.0)
        )
        facts["calibration"] = [slope, shift]
        skipped = not facts["learned"]
        facts["metrics"] = {
            **validation_metrics.figures(slope * logits + shift),
            **validation_metrics.alone(scores),
            "personalised_scale": facts["scales"][0],
            "popularity_scale": facts["scales"][1],
            "num_next_interactions": 0 if skipped else len(run.next_interactions_before(VALIDATION)),
        }
