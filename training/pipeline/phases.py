"""The phases of a fit in order, from where it was left.

Each is resumable after any epoch, and those that learn from labels run once more (`early_stopping.refit`):

0. `language_pretraining`: the language model alone learns the language of the texts; left out by default
1. `next_interaction_pretraining`: f learns users' next interactions after earlier times; skipped without them
2. `tabular`: g on the training part, stopped early; f's direct path from words to response, and its lexical one; then
   the scale of every part of the logit, by the validation part: what adds nothing there gets 0
3. `finetuning`: f and g together, the language model's layers among them, stopped early: where the validation part
   finds it better without, before the first epoch
4. `… refit`: phases 2 and 3 from what phases 0 and 1 left, on train + validation, for the numbers of epochs that were
   best: the latest labels are the nearest to the future

Next interactions whose window had not ended when the validation part began are left out.
Metrics and calibration come from the stopped model of phase 3; the bundle holds that of the last phase. Of the
validation part's query groups without a positive, a sample stands for all where they are most of it.

A fit may begin with a champion (`training.pipeline.warm_start`): then neither language nor next interactions are
learned again, a fraction of the epochs is run, and where the training part holds nothing that the champion has not
learned from, phases 2 and 3 only choose the scales and measure: what is new is learned in phase 4.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from training.data.split import TEST
from training.inference.bundle import left_out, weights_of
from training.models.calibration import fit_calibration
from training.pipeline.context import FitContext
from training.pipeline.pretraining import known_text_ids, language_pretraining_phase, next_interaction_phase
from training.pipeline.supervised import finetuning_phase, tabular_phase
from training.pipeline.trainer import Phase
from training.runtime.checkpoint import TrainingState, trainable_state

LANGUAGE_PRETRAINING, NEXT_INTERACTION_PRETRAINING = "language_pretraining", "next_interaction_pretraining"
TABULAR, FINETUNING = "tabular", "finetuning"
REFIT = " refit"
CHOSEN = (
    "tabular_epochs",
    "num_trees",
    "response_penalty",
    "lexical_penalty",
    "scales",
    "finetuning_epochs",
    "calibration",
)
ORDER = (
    LANGUAGE_PRETRAINING,
    NEXT_INTERACTION_PRETRAINING,
    TABULAR,
    FINETUNING,
    TABULAR + REFIT,
    FINETUNING + REFIT,
)


class Phases:
    """The phases in order, from where `state` is.

    Args:
        context: data and modules.
        state: changed as phases end.
        run_phase: trains one phase.
        encoder_weights: what language pretraining left, by name; filled when it ends, and saved in every later
            checkpoint.
        frozen_model: weights of f and g before fine-tuning; filled then, and saved likewise. A refit's f goes on from
            them, so where nothing is searched for, they are to be those of an earlier fit.
        report: says one line to who watches.
        lap: told the name of what is over, beside the phases that are trained.
    """

    def __init__(
        self,
        context: FitContext,
        state: TrainingState,
        run_phase: Callable[[Phase], None],
        encoder_weights: dict[str, Tensor],
        frozen_model: dict[str, Tensor],
        *,
        report: Callable[[str], None] = lambda _: None,
        lap: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.context, self.state, self.results = context, state, state.results
        self.run_phase, self.report, self.lap = run_phase, report, lap
        self.encoder_weights, self.frozen_model = encoder_weights, frozen_model

    def run_all(self, chosen: Mapping[str, Any] | None = None) -> None:
        """Run the phases that are left; leaves the model of the last in place.

        Args:
            chosen: what an earlier fit found best on its validation part (CHOSEN): then all known rows are learned
                from, those of the test part too, and nothing is searched for.
        """
        context, results = self.context, self.results
        if chosen is not None:
            results.update(chosen)
        for sentence in left_out(context.recipe):
            self.report(sentence)
        self._pretrain_language()
        if chosen is None and self._position() <= ORDER.index(FINETUNING):
            self._train("", context.train)
            self._calibrate_and_measure()
        if chosen is not None or context.recipe.early_stopping.refit:
            context.model = context.fresh_model()
            known = (
                np.flatnonzero(context.data.part != TEST)
                if chosen is None
                else np.arange(len(context.labels))
            )
            self._train(REFIT, known)
        context.model.calibrate(*results["calibration"])

    def _position(self) -> int:
        return ORDER.index(self.state.phase) if self.state.phase in ORDER else 0

    def _pretrain_language(self) -> None:
        """Learn the language of the texts, or take what was learned of it. A champion has learned it already."""
        context = self.context
        if self._position() == ORDER.index(LANGUAGE_PRETRAINING) and not context.champion:
            text_ids = known_text_ids(context.data)
            phase = language_pretraining_phase(
                LANGUAGE_PRETRAINING, context.recipe, context.encoder, context.table, text_ids
            )
            if phase is None:
                return
            self.run_phase(phase)
            self.encoder_weights.update(trainable_state({"encoder": context.encoder}))
        if self.encoder_weights:
            context.begin_with(dict(self.encoder_weights))

    def _train(self, refit: str, rows: np.ndarray) -> None:
        """Next-interaction pretraining, tabular training and fine-tuning; what is over is not run again."""
        context, results, recipe, searching = self.context, self.results, self.context.recipe, not refit
        if not searching:
            context.take_pretrained(self.frozen_model)
        elif self._position() <= ORDER.index(NEXT_INTERACTION_PRETRAINING):
            results["pretrained"] = self._pretrain_next_interactions()
        elif results["pretrained"]:
            context.centre_text_model()
        if self._position() <= ORDER.index(TABULAR + refit):
            planned = recipe.tabular_model.epochs
            epochs = self._search_epochs(planned) if searching else results["tabular_epochs"]
            self.run_phase(tabular_phase(context, TABULAR + refit, rows, epochs=epochs, validate=searching))
            if searching:
                results["tabular_epochs"] = self.state.best_epoch or planned
            if epochs or not searching:
                self._start_from_regressions(refit, rows)
            else:
                # The champion's, as its trees are those that are stacked.
                results["num_trees"] = context.model.trees.num_trees
            if searching:
                results["scales"] = context.stack()
                self.lap("stacking")
            *scales, intercept = results["scales"]["all"]
            context.model.set_scales(scales, intercept)
            self.frozen_model.clear()
            self.frozen_model.update(weights_of(context.model))
        if context.champion:
            rows = context.champion.with_replay(context.data, rows, recipe.seed)
        epochs = self._search_epochs(recipe.finetuning.epochs) if searching else results["finetuning_epochs"]
        self.run_phase(finetuning_phase(context, FINETUNING + refit, rows, epochs=epochs, validate=searching))
        if searching:
            results["finetuning_epochs"] = self.state.best_epoch if epochs else self._champions_epochs()

    def _start_from_regressions(self, refit: str, rows: np.ndarray) -> None:
        """G's trees and f's direct and lexical paths; a champion has the latter already."""
        context, results, searching = self.context, self.results, not refit
        num_trees = context.grow_trees(rows, None if searching else results["num_trees"])
        results.setdefault("num_trees", num_trees)
        self.lap("boosted_trees" + refit)
        if not context.champion:
            observed = context.observed_pairs(rows)
            penalty = context.fit_response(observed, None if searching else results.get("response_penalty"))
            results["response_penalty"] = penalty
            self.lap("text_response" + refit)
            penalty = context.fit_lexical(observed, None if searching else results.get("lexical_penalty"))
            results["lexical_penalty"] = penalty
            self.lap("lexical_response" + refit)

    def _search_epochs(self, planned: int) -> int:
        """Epochs on the training part: none where a champion has learned from all of it."""
        champion = self.context.champion
        return planned if champion is None or champion.has_new(self.context.data) else 0

    def _champions_epochs(self) -> int:
        """Epochs of fine-tuning where nothing can tell which are best: none where the champion was better without."""
        planned, champion = self.context.recipe.finetuning.epochs, self.context.champion
        return min(planned, champion.predictor.manifest.metrics["finetuning_epochs"]) if champion else planned

    def _pretrain_next_interactions(self) -> bool:
        """Pretrain f; False where there are no next interactions. A champion has learned from them already."""
        if self.context.champion:
            return bool(self.context.champion.predictor.model.text_model.centred)
        phase = next_interaction_phase(self.context, NEXT_INTERACTION_PRETRAINING)
        if phase is None:
            self.report(f"{NEXT_INTERACTION_PRETRAINING}: skipped, no next interactions to learn from")
            return False
        self.run_phase(phase)
        self.context.centre_text_model()
        return True

    def _calibrate_and_measure(self) -> None:
        """Calibration and metrics, from the validation part."""
        context, results = self.context, self.results
        scores, validation_metrics = context.validation_scores(), context.validation_metrics
        logits = scores.text_logit + scores.tabular_logit
        slope, shift = 1.0, 0.0
        finetuned = self.state.best_epoch > 0  # what was not is calibrated by stacking
        if context.recipe.calibration.enabled and finetuned:
            slope, shift = fit_calibration(logits, validation_metrics.labels, validation_metrics.weights)
        results["calibration"] = [slope, shift]
        skipped = not results["pretrained"]
        results["metrics"] = {
            **validation_metrics.compute(slope * logits + shift),
            **validation_metrics.by_part(scores.text_logit, scores.tabular_logit),
            **{name: results[name] for name in CHOSEN if name in results},
            "num_next_interactions": 0 if skipped else len(context.known_next_interactions()),
        }
