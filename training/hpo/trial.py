"""One trial of a search: a fit up to its figures on the validation part, sharing what earlier trials made.

What depends on which settings is not written down anywhere: a recipe that notes what is read of it says so,
and a later recipe that says the same there gets the same thing.
"""

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.split import TEST
from training.pipeline.context import FitContext
from training.pipeline.corpus import EncodedCorpus
from training.pipeline.phases import LANGUAGE_PRETRAINING, NEXT_INTERACTION_PRETRAINING, Phases
from training.pipeline.trainer import Phase, run_phase
from training.runtime.checkpoint import Checkpoints, TrainingState, under
from training.runtime.device import first_device

T = TypeVar("T")
Report = Callable[[str, int, float], None]
"""Called with stage, epoch and figure; what it raises ends the trial."""


def before_test(data: Examples) -> Examples:
    """The examples without the rows of the test part."""
    keep = data.part != TEST
    return replace(data, columns=data.columns.only(np.flatnonzero(keep)), part=data.part[keep])


class Noted:
    """A recipe that notes which of its settings were read, and their values."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.read: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._recipe, name)
        if is_dataclass(value):
            return _NotedSection(name, value, self.read)
        self.read[name] = value
        return value

    def says_the_same(self, read: dict[str, Any]) -> bool:
        """Whether what was once read of a recipe is what this one says there."""
        settings = self._recipe.flat()
        return all(settings[name] == value for name, value in read.items())


class _NotedSection:
    def __init__(self, section: str, settings: Any, read: dict[str, Any]) -> None:
        self._section, self._settings, self._read = section, settings, read

    def __getattr__(self, name: str) -> Any:
        value = self._read[f"{self._section}.{name}"] = getattr(self._settings, name)
        return value


class Once(Generic[T]):
    """Something that is made again only where a recipe, or what it is made from, differs."""

    def __init__(self) -> None:
        self._made: tuple[dict[str, Any], dict[str, Tensor], T] | None = None

    def get(self, noted: Noted, source: dict[str, Tensor], make: Callable[[], T]) -> T:
        """What `make` made last, from the same tensors and a recipe that says the same where it was read."""
        if self._made is not None and noted.says_the_same(self._made[0]) and _equal(self._made[1], source):
            return self._made[2]
        self._made = None  # before the next one is made: there may be no room for both
        made = make()
        self._made = (dict(noted.read), source, made)  # what is read later is no part of it
        return made


class Watch(Checkpoints):
    """In place of checkpoints, which no trial needs: tells each epoch's figure."""

    def __init__(self, metric: str, report: Report) -> None:
        self.metric, self.report = metric, report

    def save(self, tensors: dict[str, Tensor], state: TrainingState) -> None:  # noqa: ARG002
        """Tell the figure of the epoch that ended."""
        value = state.history[-1].get(self.metric)
        if value is not None:
            self.report(state.phase, state.epoch, value)

    def load(self) -> None:
        """Nothing: a trial that was killed begins again."""


class NotedContext(FitContext):
    """A run that notes which settings the stages before any answer read; not those its modules were built from.

    Args:
        data: the examples.
        recipe: the settings.
        corpus: the texts.
    """

    def __init__(self, data: Examples, recipe: Recipe, corpus: EncodedCorpus) -> None:
        super().__init__(data, recipe, corpus=corpus)
        self.noted = Noted(recipe)
        self.recipe = cast(Recipe, self.noted)

    def next_interaction_phase(self, name: str, *, before: str) -> Phase | None:
        """The stage as `FitContext` makes it; what was read before it begins does not matter to it."""
        self.noted.read.clear()
        return super().next_interaction_phase(name, before=before)


class Trials:
    """Trials of recipes on the same examples.

    Args:
        data: the examples; rows of the test part are dropped.
    """

    def __init__(self, data: Examples) -> None:
        self.data = before_test(data)
        self._corpus: Once[EncodedCorpus] = Once()
        self._phases: dict[str, Once[dict[str, Tensor]]] = {
            LANGUAGE_PRETRAINING: Once(),
            NEXT_INTERACTION_PRETRAINING: Once(),
        }

    def run(self, recipe: Recipe, *, log: Any, report: Report) -> dict[str, Any]:
        """Run one trial.

        Args:
            recipe: its settings; `refit` has no say.
            log: a TensorBoard `SummaryWriter`.
            report: hears the recipe's metric after every epoch that is measured.

        Returns:
            Figures on the validation part, as `FitResult.metrics`.
        """
        recipe = recipe.updated(early_stopping={"refit": False})
        noted = Noted(recipe)
        run = NotedContext(
            self.data, recipe, self._corpus.get(noted, {}, lambda: self._read(cast(Recipe, noted)))
        )
        state, watch = TrainingState(phase=""), Watch(recipe.early_stopping.metric, report)

        def go(phase: Phase) -> None:
            def learn() -> dict[str, Tensor]:
                run_phase(phase, run.recipe, state, watch, log=log, bar=False)
                return _copy(phase.modules)

            if phase.name in self._phases:
                _put(phase.modules, self._phases[phase.name].get(run.noted, _copy(phase.modules), learn))
            else:
                learn()

        Phases(run, state, go, {}, report=lambda _: None).run_all()
        return cast(dict[str, Any], state.results["metrics"])

    def _read(self, recipe: Recipe) -> EncodedCorpus:
        return EncodedCorpus(self.data.texts, recipe, None, first_device())


def _copy(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, by "module.name"."""
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }


def _put(modules: dict[str, nn.Module], tensors: dict[str, Tensor]) -> None:
    """Put back what `_copy` copied."""
    for name, module in modules.items():
        module.load_state_dict(under(name, tensors))


def _equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
