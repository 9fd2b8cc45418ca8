"""The trials that a search keeps: Optuna's study in a file, and how the next trial is proposed."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.errors import SettingError
from training.config.recipe import Recipe
from training.evaluation.metrics import LOWER_IS_BETTER
from training.hpo.space import Choices, Range, Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

STORAGE = "trials.db"
STARTUP = 5  # trials that are run to their end before any is pruned
KEY, REASON = "key", "reason"


def load_optuna() -> Any:
    """The package, silent.

    Raises:
        SettingError: it is not installed.
    """
    try:
        found = importlib.import_module("optuna")
    except ImportError:
        raise SettingError(
            "the search needs Optuna, which is not installed: pip install 'optuna>=5'"
        ) from None
    found.logging.set_verbosity(found.logging.WARNING)
    return found


def open_study(out: Path, recipe: Recipe, space: Space, key: str) -> "Study":
    """The study kept in a folder, or a new one; what a kill left under way is marked and put in line again."""
    optuna = load_optuna()
    study: Study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{(out / STORAGE).absolute()}",
        direction="minimize" if recipe.early_stopping.metric in LOWER_IS_BETTER else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        load_if_exists=True,
    )
    if study.user_attrs.get(KEY, key) != key:
        raise SettingError(
            f"{out} holds the search of other examples, another recipe or another space; choose another folder"
        )
    if KEY not in study.user_attrs:
        study.set_user_attr(KEY, key)
    as_it_is = {name: recipe.flat()[name] for name in space}
    if not study.trials and all(value in space[name] for name, value in as_it_is.items()):
        study.enqueue_trial(as_it_is)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def ask(study: "Study", space: Space, recipe: Recipe) -> "Trial":
    """The next trial. Its draws depend on the trials that ended alone: a search that went on proposes the same."""
    optuna = load_optuna()
    study.sampler = optuna.samplers.TPESampler(seed=recipe.seed * 100_003 + len(finished(study)))
    return study.ask({name: _distribution(values) for name, values in space.items()})


def _distribution(values: Choices | Range) -> Any:
    kinds = load_optuna().distributions
    if isinstance(values, Choices):
        return kinds.CategoricalDistribution(values.values)
    whole = isinstance(values.low, int)
    kind = kinds.IntDistribution if whole else kinds.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def finished(study: "Study") -> list["FrozenTrial"]:
    """The trials that ended; one that failed without a reason was interrupted, and does not count."""
    failed = load_optuna().trial.TrialState.FAIL
    ended = [one for one in study.trials if one.state.is_finished()]
    return [one for one in ended if one.state != failed or REASON in one.user_attrs]
