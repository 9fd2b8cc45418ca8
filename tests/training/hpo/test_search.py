"""The search: what it tries, what it shares, what it never looks at, and how it goes on after a kill."""

import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import optuna
import pandas as pd
import pytest

from expectations.errors import DataError, SettingError, TransientError
from tests.training.scripts import run_script
from tests.training.synthetic import make_rows, write_examples
from training.cli import main
from training.config.recipe import Recipe, read_recipe
from training.config.settings import nested
from training.data.dataset import read_examples
from training.data.split import TEST
from training.hpo import search as searching
from training.hpo import trial
from training.hpo.search import _locked, recipe_text, table
from training.hpo.space import holds, read_space
from training.hpo.trial import Trials, before_test
from training.pipeline.context import EncodedCorpus
from training.pipeline.fit import fit
from training.pipeline.trainer import Phase

ROOT = Path(__file__).parents[3]
SPACE = """
[tabular_model]
ensemble_size = [1, 2, 4]
learning_rate = { low = 1e-3, high = 5e-2, log = true }
dropout = { low = 0.0, high = 0.5 }
hidden_size = { low = 8, high = 24 }
"""


search = partial(searching.search, progress=False)


@pytest.fixture(scope="module", autouse=True)
def _pruned_early() -> Iterator[None]:
    """The median of two trials is enough to give one up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "STARTUP", 2)
        yield


@pytest.fixture(scope="module")
def quick(recipe: Recipe) -> Recipe:
    return recipe.updated(
        tabular_model={"epochs": 2},
        finetuning={"epochs": 1},
        early_stopping={"metric": "auc"},
        encoder={"trainable_layers": 0},
    )


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def searched(
    examples: Path, quick: Recipe, space: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return search(examples, quick, space=space, out=tmp_path_factory.mktemp("searched"), trials=7)


def rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["state"], one["value"], one["settings"]) for one in summary["trials"]]


def test_the_best_trial_is_a_recipe_that_fit_takes(
    searched: dict[str, Any], examples: Path, quick: Recipe, tmp_path: Path
) -> None:
    path, found = Path(searched["best"]["recipe"]), searched["best"]["value"]
    assert json.loads((path.parent / "summary.json").read_text()) == json.loads(json.dumps(searched))
    assert found == max(one["value"] for one in searched["trials"] if one["state"] == "complete")
    assert len(searched["trials"]) == 7
    best = read_recipe(path)
    assert best == quick.updated(**nested(searched["best"]["settings"]))
    places = {"out": tmp_path / "out", "work": tmp_path / "work", "log_dir": tmp_path / "tb"}
    again = fit(examples, best.updated(early_stopping={"refit": False}), **places, progress=False)
    assert again.metrics["auc"] == pytest.approx(found, abs=1e-9)


def test_the_first_trial_is_the_recipe_and_a_worse_one_is_given_up(
    searched: dict[str, Any], quick: Recipe
) -> None:
    first, best = searched["trials"][0], searched["best"]["value"]
    assert first["settings"] == {name: quick.flat()[name] for name in first["settings"]}
    assert best >= first["value"]
    pruned = [one for one in searched["trials"] if one["state"] == "pruned"]
    assert pruned and all(one["epochs"] < 3 for one in pruned)
    lines = table(searched).splitlines()
    assert len(lines) == 7 and f"auc {best:.5f}" in lines[0] and "pruned" in lines[-1]


@pytest.mark.slow
def test_a_killed_search_goes_on(examples: Path, quick: Recipe, space: Path, tmp_path: Path) -> None:
    """Killed in the third trial's first epoch: that trial is done again, and no more are run than were asked for."""
    script = """
import os, sys
from pathlib import Path
from training.config.recipe import read_recipe
from training.hpo.search import search
from training.pipeline import trainer
real, count = trainer._run_epoch, 0
def killed(*arguments, **named):
    global count
    count += 1
    if count == 9:  # two of next_interaction_pretraining, three of every trial: in the third one
        os._exit(9)
    return real(*arguments, **named)
trainer._run_epoch = killed
examples, recipe, space, out = map(Path, sys.argv[1:])
search(examples, read_recipe(recipe), space=space, out=out, trials=4, progress=False)
"""
    (tmp_path / "quick.toml").write_text(recipe_text(quick), encoding="utf-8")
    out = tmp_path / "out"
    done = run_script(script, examples, tmp_path / "quick.toml", space, out)
    assert done.returncode == 9, done.stderr[-2000:]
    interrupted = stored(out)
    assert [one.state.name for one in interrupted] == ["COMPLETE", "COMPLETE", "RUNNING"]
    result = search(examples, quick, space=space, out=out, trials=4)
    assert [one.state.name for one in stored(out)][2] == "FAIL"
    assert len(result["trials"]) == 4
    assert result["trials"][2]["settings"] == interrupted[2].params
    again = search(examples, quick, space=space, out=out, trials=4)
    assert again == result


def stored(out: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{out / 'trials.db'}").trials


def test_a_search_that_has_all_its_trials_runs_none(
    searched: dict[str, Any],
    examples: Path,
    quick: Recipe,
    space: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searching, "read_examples", lambda _: pytest.fail("nothing is left to try"))
    again = search(examples, quick, space=space, out=Path(searched["best"]["recipe"]).parent, trials=7)
    assert again == searched


def test_only_the_validation_part_is_looked_at(
    searched: dict[str, Any], quick: Recipe, space: Path, tmp_path: Path
) -> None:
    """The same search where the test part is nonsense finds the same."""
    frame = make_rows(np.random.default_rng(0), 24, 12)
    tested = frame["event_timestamp"] >= pd.Timestamp(2020, 1, 9)
    frame.loc[tested, "label"] = 1 - frame.loc[tested, "label"]
    for column in ("user_events", "item_popularity", "cross_visits", "context_hour"):
        frame.loc[tested, column] = 1e6
    frame.loc[tested, "item_kind"] = "nonsense"
    spoiled = write_examples(tmp_path / "spoiled", rows=frame)
    result = search(spoiled, quick, space=space, out=tmp_path / "out", trials=2)
    assert rows(result) == rows(searched)[:2]
    data = before_test(read_examples(spoiled))
    assert TEST not in set(data.part) and len(data.rows) == len(data.part) == (~tested).sum()


@pytest.mark.slow
def test_what_trials_share_is_done_once(
    examples: Path, quick: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are read, and learned from without labels, once; nothing differs from trials on their own."""
    learns = quick.updated(
        encoder={"trainable_layers": 1},
        pretraining={"language_epochs": 1, "language_objective": "contrastive"},
    )
    recipes = [
        learns.updated(tabular_model={"ensemble_size": members, "dropout": 0.1 * members})
        for members in (1, 2, 3)
    ]
    alone = [Trials(read_examples(examples)).run(one, log=Mock(), report=Mock()) for one in recipes]
    calls = counted(monkeypatch)
    together = Trials(read_examples(examples))
    assert [together.run(one, log=Mock(), report=Mock()) for one in recipes] == alone
    assert calls["encode"] == calls["language_pretraining"] == calls["next_interaction_pretraining"] == 1
    assert calls["tabular"] == calls["finetuning"] == 3


@pytest.mark.parametrize(
    ("change", "encoded", "learned"),
    [
        ({"tabular_model.hidden_size": 8}, 1, 1),
        ({"pretraining.next_interaction_learning_rate": 1e-3}, 1, 2),
        ({"text_model.hidden_size": 8}, 1, 2),
        ({"optimizer.weight_decay": 1e-3}, 1, 2),
        ({"encoder.max_tokens": 3}, 2, 2),
    ],
)
def test_a_setting_that_matters_is_not_shared(
    change: dict[str, Any],
    encoded: int,
    learned: int,
    examples: Path,
    quick: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, runs = counted(monkeypatch), Trials(read_examples(examples))
    for recipe in (quick, quick.updated(**nested(change))):
        runs.run(recipe, log=Mock(), report=Mock())
    assert calls["encode"] == encoded
    assert calls["next_interaction_pretraining"] == learned


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts readings of all texts, and phases that were run."""
    calls: Counter[str] = Counter()
    encode, run_phase = trial.EncodedCorpus, trial.run_phase

    def encoded(*arguments: Any) -> EncodedCorpus:
        calls["encode"] += 1
        return encode(*arguments)

    def run(phase: Phase, *arguments: Any, **named: Any) -> None:
        calls[phase.name] += 1
        run_phase(phase, *arguments, **named)

    monkeypatch.setattr(trial, "EncodedCorpus", encoded)
    monkeypatch.setattr(trial, "run_phase", run)
    return calls


def test_a_trial_that_fails_has_a_reason_and_the_search_goes_on(
    examples: Path, quick: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "space.toml"
    path.write_text("tabular_model.learning_rate = [1e-2, 1e30]", encoding="utf-8")
    wild = quick.updated(tabular_model={"learning_rate": 1e30})
    result = search(examples, wild, space=path, out=tmp_path / "out", trials=5)
    failed = [one for one in result["trials"] if one["state"] == "fail"]
    assert failed and "learning rates" in failed[0]["reason"]
    assert result["best"]["settings"] == {"tabular_model.learning_rate": 1e-2}


def test_a_search_without_any_result_says_why(examples: Path, quick: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("tabular_model.learning_rate = [1e30]", encoding="utf-8")
    with pytest.raises(SettingError, match=r"no trial came to an end.*learning rates"):
        search(examples, quick, space=path, out=tmp_path / "out", trials=2)


def test_examples_that_cannot_be_learned_from_are_refused(quick: Recipe, space: Path, tmp_path: Path) -> None:
    frame = make_rows(np.random.default_rng(0), 24, 12)
    frame.loc[frame["event_timestamp"] >= pd.Timestamp(2020, 1, 7), "label"] = 0
    broken = write_examples(tmp_path / "examples", rows=frame)
    with pytest.raises(DataError, match="validation part, 0 are positive"):
        search(broken, quick, space=space, out=tmp_path / "out", trials=2)


def test_another_search_in_the_same_folder_is_refused(
    searched: dict[str, Any], examples: Path, quick: Recipe, space: Path
) -> None:
    out = Path(searched["best"]["recipe"]).parent
    with pytest.raises(SettingError, match="holds the search of other"):
        search(
            examples,
            quick.updated(early_stopping={"metric": "log_loss"}),
            space=space,
            out=out,
            trials=9,
        )
    with _locked(out), pytest.raises(TransientError, match="another process"):
        search(examples, quick, space=space, out=out, trials=9)


def test_without_optuna_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "training.hpo.search")
    assert main(["search", "--examples", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "pip install 'optuna" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("leerning_rate = [1]", "'leerning_rate' is no setting"),
        ("early_stopping.metric = ['auc', 'log_loss']", "'early_stopping.metric' must be the same"),
        ("seed = { low = 1, high = 3 }", "'seed' must be the same"),
        ("[tabular_model]\nleerning_rate = [1]", "'tabular_model.leerning_rate' is no setting"),
        ("tabular_model = [1]", "'tabular_model' is no setting"),
        ("", "nothing to search"),
        ("tabular_model.ensemble_size = []", "tabular_model.ensemble_size is"),
        ("tabular_model.ensemble_size = 3", "tabular_model.ensemble_size is"),
        ("tabular_model.ensemble_size = [1, 2.5]", "must be of type int"),
        ("tabular_model.ensemble_size = [0, 1]", "tabular_model.ensemble_size is 0"),
        ("encoder.pooling = { low = 1, high = 2 }", "encoder.pooling is"),
        ("tabular_model.ensemble_size = { low = 4, high = 2 }", "low below high"),
        ("tabular_model.dropout = { low = 0, high = 0.5, log = true }", "above 0"),
        ("tabular_model.dropout = { low = 0.1, high = 5.0 }", "tabular_model.dropout is 5.0"),
        ("tabular_model.dropout = { low = 0.1, high = 0.5, lag = true }", "tabular_model.dropout is"),
        ("tabular_model.ensemble_size = [", "not valid TOML"),
    ],
)
def test_a_bad_space_is_refused(text: str, expected: str, quick: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=expected):
        read_space(path, quick)
    with pytest.raises(SettingError, match="cannot be read"):
        read_space(tmp_path / "none.toml", quick)


def test_the_packaged_space_fits_the_packaged_recipe() -> None:
    recipe = read_recipe(None)
    space = read_space(None, recipe)
    assert all(holds(values, recipe.flat()[name]) for name, values in space.items())


def test_a_written_recipe_names_what_differs(tmp_path: Path) -> None:
    changed = read_recipe(None).updated(
        encoder={"name": 'a "quoted" folder'},
        tabular_model={"ensemble_size": 9},
        optimizer={"weight_decay": 1e-7},
        calibration={"enabled": False},
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_text(changed), encoding="utf-8")
    assert tomllib.loads(path.read_text()) == {
        "encoder": {"name": 'a "quoted" folder'},
        "tabular_model": {"ensemble_size": 9},
        "optimizer": {"weight_decay": 1e-7},
        "calibration": {"enabled": False},
    }
    assert read_recipe(path) == changed
