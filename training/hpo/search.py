"""Searching for hyper-parameters: many trials of a recipe, the best of them as a recipe of its own.

A trial is a fit without its second half: no refit, no bundle, no checkpoints. Its value is the recipe's metric
on the validation part; the test part's rows are not even kept in memory. What trials share is done once
(`training.hpo.trial`).

Optuna proposes trials (tree-structured Parzen estimator, Bergstra et al. 2011, "Algorithms for Hyper-Parameter
Optimization"), prunes them by the median rule (Golovin et al. 2017, "Google Vizier", section 3.2) and stores them.
The first trial is the recipe as it is. A search that was killed goes on; the trial that was under way then is marked
failed and done again. By hand: the folder's lock, which refuses a second process and tells at once that a running
trial is a dead one (Optuna's heartbeat would wait out a grace period).

    out/
    ├── trials.db      every trial, Optuna's storage (SQLite)
    ├── recipe.toml    the best trial's recipe, for `fit --recipe`
    ├── summary.json   what was tried and what it gave
    └── tensorboard/   curves of every trial

Needs Optuna; nothing else of training does.
"""

import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from expectations.errors import RecommenderError, SettingError, TransientError
from expectations.storage.atomic import write_json, write_text
from expectations.storage.hashes import fingerprint
from training.config.recipe import Recipe, read_recipe
from training.config.settings import nested
from training.data.dataset import read_examples
from training.evaluation.metrics import LOWER_IS_BETTER
from training.pipeline.fit import check_learnable, example_hashes
from training.pipeline.phases import TABULAR

try:
    import optuna
    import tomli_w
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise SettingError(
        f"the search needs Optuna and tomli-w ({error}): pip install 'optuna>=5' tomli-w"
    ) from None

from training.hpo.space import Space, holds, read_space, suggested
from training.hpo.trial import Trials
from training.runtime.scalar_log import scalar_log

STORAGE, RECIPE, SUMMARY, LOG = "trials.db", "recipe.toml", "summary.json", "tensorboard"
STARTUP = 5  # trials that are run to their end before any is pruned
LATER = 1000  # steps of the phases after `tabular` are counted from here, whatever its number of epochs
KEY, REASON, SECONDS, RETRY_OF = "key", "reason", "seconds", "retry_of"  # user attributes


def search(
    examples: Path, recipe: Recipe, *, space: Path | None, out: Path, trials: int, progress: bool = True
) -> dict[str, Any]:
    """Search for a better recipe.

    Args:
        examples: an examples folder.
        recipe: what the trials have in common; its metric decides.
        space: TOML file of what they differ in; None: the packaged space.
        out: where trials and results are kept; run again with the same, and it goes on.
        trials: how many there shall be in all, those of former runs included.
        progress: whether to show a progress bar and each trial's result.

    Returns:
        What `summary.json` holds: metric, best (value, settings, path of its recipe) and every trial.

    Raises:
        SchemaError, DataError: the examples cannot be learned from.
        SettingError: the space does not fit the recipe, `out` holds another search, or no trial came to an end.
        TransientError: another process searches in `out`.
    """
    tried = read_space(space, recipe)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _locked(out):
        study = _study(out, recipe, tried, _key(examples, recipe, tried))
        left = trials - len(finished(study))
        if left > 0:
            data = read_examples(examples)
            check_learnable(data)
            runs = Trials(data)

            def shown(_study: optuna.Study, trial: FrozenTrial) -> None:
                if progress:
                    tqdm.write(_line(_row(trial), recipe.early_stopping.metric), file=sys.stderr)

            study.optimize(
                lambda trial: _objective(trial, tried, runs, recipe, out),
                n_trials=left,
                catch=RecommenderError,  # a learning rate too high is a result, too
                callbacks=[shown],
                show_progress_bar=progress and sys.stderr.isatty(),
            )
        return _summary(study, recipe, out)


def _study(out: Path, recipe: Recipe, space: Space, key: str) -> optuna.Study:
    """The study kept in a folder, or a new one; trials that a kill interrupted are put in line again."""
    study = optuna.create_study(
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
    study.set_user_attr(KEY, key)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    retried = {trial.user_attrs.get(RETRY_OF) for trial in study.trials}
    for trial in study.get_trials(states=[TrialState.FAIL]):
        if REASON not in trial.user_attrs and trial.number not in retried:
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})
    as_it_is = {name: recipe.flat()[name] for name in space}
    if not study.trials and all(holds(space[name], value) for name, value in as_it_is.items()):
        study.enqueue_trial(as_it_is)
    study.sampler = optuna.samplers.TPESampler(seed=recipe.seed * 100_003 + len(finished(study)))
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended; one that failed without a reason was interrupted, and does not count."""
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    return [trial for trial in ended if trial.state != TrialState.FAIL or REASON in trial.user_attrs]


def _objective(trial: optuna.Trial, space: Space, runs: Trials, recipe: Recipe, out: Path) -> float:
    """Run a trial; its metric on the validation part."""
    started = time.perf_counter()
    tried = recipe.updated(**nested(suggested(trial, space)))

    def report(phase: str, epoch: int, value: float) -> None:
        trial.report(value, epoch if phase == TABULAR else LATER + epoch)
        over = phase != TABULAR and epoch == tried.finetuning.epochs  # nothing would be saved
        if not over and trial.should_prune():
            raise optuna.TrialPruned

    try:
        with scalar_log(out / LOG / f"trial-{trial.number}") as log:
            return float(runs.run(tried, log=log, report=report)[recipe.early_stopping.metric])
    except RecommenderError as error:
        trial.set_user_attr(REASON, str(error))
        raise
    finally:
        trial.set_user_attr(SECONDS, round(time.perf_counter() - started, 1))


def _summary(study: optuna.Study, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write the best recipe and the summary."""
    if not study.get_trials(states=[TrialState.COMPLETE]):
        reasons = [one.user_attrs[REASON] for one in finished(study) if REASON in one.user_attrs]
        raise SettingError(
            f"{out}: no trial came to an end; the last one's reason: {reasons[-1] if reasons else 'none was run'}"
        )
    best, metric = study.best_trial, recipe.early_stopping.metric
    title = f"# Trial {best.number} of a search: {metric} {best.value:.5f} (validation part)\n"
    write_text(out / RECIPE, title + recipe_text(recipe.updated(**nested(best.params))))
    summary = {
        "metric": metric,
        "best": {**_row(best), "recipe": str(out / RECIPE)},
        "trials": [_row(trial) for trial in finished(study)],
    }
    write_json(out / SUMMARY, summary)
    return summary


def recipe_text(recipe: Recipe) -> str:
    """A recipe as TOML: the settings in which it differs from the packaged one."""
    packaged = read_recipe(None).flat()
    return tomli_w.dumps(
        nested({name: value for name, value in recipe.flat().items() if packaged[name] != value})
    )


def _row(trial: FrozenTrial) -> dict[str, Any]:
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


def _line(row: dict[str, Any], metric: str) -> str:
    value = "no value" if row["value"] is None else f"{metric} {row['value']:.5f}"
    settings = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row["settings"].items()
    )
    head = f"trial {row['trial']:<3} {row['state']:<8} {value}  {row['seconds'] or 0:6.0f} s  {settings}"
    return head if row["reason"] is None else f"{head}: {row['reason']}"


def _key(examples: Path, recipe: Recipe, space: Space) -> str:
    """What a study's trials have in common: trials of another one cannot be compared with them."""
    return fingerprint(
        example_hashes(examples), recipe.as_dict(), {name: str(values) for name, values in space.items()}
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
