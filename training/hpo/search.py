"""Searching for hyper-parameters: many trials of a recipe, the best of them as a recipe of its own.

A trial is a fit without its second half: no refit, no bundle, no checkpoints. Its value is the recipe's metric
on the validation part; the test part's rows are not even kept in memory. What several trials share is done
once: reading examples and texts, and what is learned before any answer is seen, as long as nothing that it
depends on is searched.

Trials are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for
Hyper-Parameter Optimization") and stopped early by the median rule (Golovin et al. 2017, "Google Vizier",
section 3.2): after each epoch, a trial whose best value so far is below the median of the others at that
epoch is given up. The first trial is the recipe as it is. Every trial is kept in a file, so a search that was
killed goes on; a trial that was under way then is marked failed and done again.

    out/
    ├── trials.db      every trial, Optuna's storage (SQLite)
    ├── recipe.toml    the best trial's recipe, for `fit --recipe`
    ├── summary.json   what was tried and what it gave
    └── tensorboard/   curves of every trial

Needs Optuna; nothing else of training does.
"""

import fcntl
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from expectations.contracts.examples import INTERACTION_HISTORIES, NEXT_INTERACTIONS, ROWS, SCHEMA, TEXTS
from expectations.errors import RecommenderError, SettingError, TransientError
from expectations.storage.atomic import write_json, write_text
from expectations.storage.hashes import file_hash, fingerprint
from training.config.recipe import Recipe, nested, read_recipe
from training.data.dataset import read_examples
from training.evaluation.metrics import LOWER_IS_BETTER
from training.hpo.space import Space, read_space
from training.hpo.study import REASON, ask, finished, load_optuna, open_study
from training.hpo.trial import Trials
from training.pipeline.fit import check_learnable
from training.pipeline.phases import TABULAR

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

RECIPE, SUMMARY, LOG = "recipe.toml", "summary.json", "tensorboard"
LATER = 1000  # steps of the stages after `past` are counted from here, whatever its number of epochs
SECONDS = "seconds"


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        recipe: the best recipe's file.
        best: its figure.
        summary: what `summary.json` holds.
    """

    recipe: Path
    best: float
    summary: dict[str, Any]


def search(
    examples: Path, recipe: Recipe, *, space: Path | None, out: Path, trials: int, progress: bool = True
) -> SearchResult:
    """Search for a better recipe.

    Args:
        examples: an examples folder.
        recipe: what the trials have in common; its metric decides.
        space: TOML file of what they differ in; None: the packaged space.
        out: where trials and results are kept; run again with the same, and it goes on.
        trials: how many there shall be in all, those of former runs included.
        progress: whether to show a progress bar and each trial's result.

    Raises:
        SchemaError, DataError: the examples cannot be learned from.
        SettingError: Optuna is missing, the space does not fit the recipe, `out` holds another search, or no
            trial came to an end.
        TransientError: another process searches in `out`.
    """
    tried = read_space(space, recipe)
    with _alone(out):
        study = open_study(out, recipe, tried, _key(examples, recipe, tried))
        left = trials - len(finished(study))
        if left > 0:
            data = read_examples(examples)
            check_learnable(data)
            runs = Trials(data)
            shown = progress and sys.stderr.isatty()
            for _ in tqdm(range(left), "search", total=trials, initial=trials - left, disable=not shown):
                trial = ask(study, tried, recipe)
                _try(study, trial, runs, recipe, out)
                if progress:
                    tqdm.write(
                        _line(_facts(study.trials[trial.number]), recipe.early_stopping.metric),
                        file=sys.stderr,
                    )
        return _result(study, recipe, out)


def _try(study: "Study", trial: "Trial", runs: Trials, recipe: Recipe, out: Path) -> None:
    """Run a trial and write down how it ended."""
    from torch.utils.tensorboard import SummaryWriter  # its import takes a second

    optuna, started = load_optuna(), time.perf_counter()
    tried = recipe.updated(**nested(trial.params))

    def report(phase: str, epoch: int, value: float) -> None:
        trial.report(value, epoch if phase == TABULAR else LATER + epoch)
        over = phase != TABULAR and epoch == tried.finetuning.epochs  # nothing would be saved
        if not over and trial.should_prune():
            raise optuna.TrialPruned

    states, value, state = optuna.trial.TrialState, None, None
    try:
        with SummaryWriter(str(out / LOG / f"trial-{trial.number}")) as log:
            value = runs.run(tried, log=log, report=report)[recipe.early_stopping.metric]
    except optuna.TrialPruned:
        state = states.PRUNED
    except RecommenderError as error:  # a learning rate too high is a result, too
        trial.set_user_attr(REASON, str(error))
        state = states.FAIL
    trial.set_user_attr(SECONDS, round(time.perf_counter() - started, 1))
    study.tell(trial, value, state=state)


def _result(study: "Study", recipe: Recipe, out: Path) -> SearchResult:
    """Write the best recipe and the summary."""
    states = load_optuna().trial.TrialState
    if not study.get_trials(states=[states.COMPLETE]):
        reasons = [one.user_attrs[REASON] for one in finished(study) if REASON in one.user_attrs]
        raise SettingError(
            f"{out}: no trial came to an end; the last one's reason: {reasons[-1] if reasons else 'none was run'}"
        )
    best = recipe.updated(**nested(study.best_params))
    metric = recipe.early_stopping.metric
    title = (
        f"# Trial {study.best_trial.number} of a search: {metric} {study.best_value:.5f} (validation part)\n"
    )
    write_text(out / RECIPE, title + recipe_text(best))
    summary = {
        "metric": recipe.early_stopping.metric,
        "best": {**_facts(study.best_trial), "recipe": str(out / RECIPE)},
        "trials": [_facts(trial) for trial in finished(study)],
    }
    write_json(out / SUMMARY, summary)
    return SearchResult(recipe=out / RECIPE, best=study.best_value, summary=summary)


def recipe_text(recipe: Recipe) -> str:
    """A recipe as TOML: the settings in which it differs from the packaged one."""
    packaged = read_recipe(None).flat()
    changed = nested({name: value for name, value in recipe.flat().items() if packaged[name] != value})
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in changed.items() if not isinstance(value, dict)
    ]
    for section, settings in changed.items():
        if isinstance(settings, dict):
            lines += [
                "",
                f"[{section}]",
                *(f"{name} = {json.dumps(value)}" for name, value in settings.items()),
            ]
    return "\n".join(lines) + "\n"


def _facts(trial: "FrozenTrial") -> dict[str, Any]:
    """A trial as one row of a table; the value of one that was pruned is its last."""
    steps = trial.intermediate_values
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.value is not None or not steps else steps[max(steps)],
        "epochs": len(steps),
        "seconds": trial.user_attrs.get(SECONDS),
        "reason": trial.user_attrs.get(REASON),
        "settings": trial.params,
    }


def table(summary: dict[str, Any]) -> str:
    """The trials of a summary, the best first, as lines of text."""
    worst_first = summary["metric"] not in LOWER_IS_BETTER
    ended = [one for one in summary["trials"] if one["state"] == "complete"]
    others = [one for one in summary["trials"] if one["state"] != "complete"]
    ordered = sorted(ended, key=lambda one: one["value"], reverse=worst_first)
    return "\n".join(_line(one, summary["metric"]) for one in [*ordered, *others])


def _line(facts: dict[str, Any], metric: str) -> str:
    value = "no value" if facts["value"] is None else f"{metric} {facts['value']:.5f}"
    settings = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in facts["settings"].items()
    )
    head = (
        f"trial {facts['trial']:<3} {facts['state']:<8} {value}  {facts['seconds'] or 0:6.0f} s  {settings}"
    )
    return head if facts["reason"] is None else f"{head}: {facts['reason']}"


def _key(examples: Path, recipe: Recipe, space: Space) -> str:
    """What a study's trials have in common: trials of another one cannot be compared with them."""
    names = (ROWS, INTERACTION_HISTORIES, TEXTS, SCHEMA, NEXT_INTERACTIONS)
    hashes = [file_hash(examples / name) for name in names if (examples / name).exists()]
    return fingerprint(hashes, recipe.as_dict(), {name: vars(values) for name, values in space.items()})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else searches in a folder: what runs there would be taken for what a kill left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TransientError(
                f"another process searches in {folder}; wait for it, or choose another folder"
            ) from None
        yield
