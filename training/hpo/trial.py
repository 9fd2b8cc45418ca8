"""One trial of a search: a fit up to its metrics on the validation part, sharing what earlier trials made.

Texts are encoded again only where a setting of [encoder] differs from the last trial's; language and next-interaction
pretraining run again only where one of [encoder], [text_model], [pretraining], [optimizer] or the transforms does.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import Tensor

from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.split import TEST
from training.pipeline.context import EncodedCorpus, FitContext
from training.pipeline.phases import LANGUAGE_PRETRAINING, NEXT_INTERACTION_PRETRAINING, Phases
from training.pipeline.trainer import Phase, run_phase
from training.runtime.checkpoint import Checkpoints, TrainingState, restore, trainable_state
from training.runtime.device import first_device

Report = Callable[[str, int, float], None]
"""Called with phase, epoch and metric; what it raises ends the trial."""


def before_test(data: Examples) -> Examples:
    """The examples without the rows of the test part."""
    keep = data.part != TEST
    return replace(data, columns=data.columns.only(np.flatnonzero(keep)), part=data.part[keep])


class EpochReports(Checkpoints):
    """In place of checkpoints, which no trial needs: reports each epoch's metric."""

    def __init__(self, metric: str, report: Report) -> None:
        self.metric, self.report = metric, report

    def save(self, tensors: dict[str, Tensor], state: TrainingState) -> None:  # noqa: ARG002
        """Report the metric of the epoch that ended."""
        value = state.history[-1].get(self.metric)
        if value is not None:
            self.report(state.phase, state.epoch, value)

    def load(self) -> None:
        """Nothing: a trial that was killed begins again."""


class Trials:
    """Trials of recipes on the same examples.

    Args:
        data: the examples; rows of the test part are dropped.
    """

    def __init__(self, data: Examples) -> None:
        self.data = before_test(data)
        self._corpus: tuple[Any, EncodedCorpus] | None = None
        self._pretrained: tuple[Any, dict[str, dict[str, Tensor]]] = (None, {})

    def run(self, recipe: Recipe, *, log: Any, report: Report) -> dict[str, Any]:
        """Run one trial.

        Args:
            recipe: its settings; `refit` has no say.
            log: a TensorBoard `SummaryWriter`, or None.
            report: hears the recipe's metric after every epoch that is measured.

        Returns:
            Metrics on the validation part, as `FitResult.metrics`.
        """
        recipe = recipe.updated(early_stopping={"refit": False})
        context = FitContext(self.data, recipe, corpus=self._encoded(recipe))
        state, reports = TrainingState(phase=""), EpochReports(context.validation_metrics.metric, report)
        pretrained = self._weights(recipe)

        def train(phase: Phase) -> None:
            if phase.name in pretrained:
                restore(phase.modules, pretrained[phase.name])
                return
            run_phase(phase, recipe, state, reports, log=log, bar=False)
            if phase.name in (LANGUAGE_PRETRAINING, NEXT_INTERACTION_PRETRAINING):
                pretrained[phase.name] = trainable_state(phase.modules)

        Phases(context, state, train, {}, {}).run_all()
        return cast(dict[str, Any], state.results["metrics"])

    def _encoded(self, recipe: Recipe) -> EncodedCorpus:
        key = (recipe.encoder, recipe.seed)
        if self._corpus is None or self._corpus[0] != key:
            self._corpus = None  # before the next one is made: there may be no room for both
            self._corpus = (key, EncodedCorpus(self.data.texts, recipe, None, first_device()))
        return self._corpus[1]

    def _weights(self, recipe: Recipe) -> dict[str, dict[str, Tensor]]:
        """Weights by pretraining phase; filled by the first trial with such settings."""
        sections = (recipe.encoder, recipe.text_model, recipe.pretraining, recipe.optimizer)
        key = (*sections, recipe.tabular_model.quantile_bins, recipe.seed)
        if self._pretrained[0] != key:
            self._pretrained = (key, {})
        return self._pretrained[1]
