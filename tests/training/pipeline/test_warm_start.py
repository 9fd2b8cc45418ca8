"""Starting from the champion: what is kept, what is learned, and when a fit is from scratch instead."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from expectations.contracts.bundle import verify_bundle, write_manifest
from expectations.errors import BundleError
from tests.training.fits import goes_on, run, weights_of
from tests.training.synthetic import SUBJECTS, make_rows, write_examples
from training.config.recipe import Recipe
from training.config.settings import nested
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.inference.bundle import PRETRAINED_EMBEDDINGS
from training.inference.predictor import Predictor
from training.pipeline.context import FitContext
from training.pipeline.fit import FitResult
from training.pipeline.warm_start import Champion, shortened

WARM = {
    "tabular_model.epochs": 4,
    "finetuning.epochs": 2,
    "finetuning.text_model_learning_rate": 1e-2,  # so that fine-tuning is not given up
}


def day(number: int) -> datetime:
    return datetime(2020, 1, number)


def phases(result: FitResult) -> list[tuple[str, int]]:
    return [(entry["phase"], entry["epoch"]) for entry in result.history if entry["epoch"]]


@pytest.fixture(scope="module")
def long(recipe: Recipe) -> Recipe:
    return recipe.updated(**nested(WARM))


@pytest.fixture(scope="module")
def champion(long: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learned from the days before the eighth."""
    folder = tmp_path_factory.mktemp("champion")
    return run(write_examples(folder / "examples", test_from=day(8)), long, folder).bundle


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eighth became known, the ninth onwards is the test part."""
    return write_examples(tmp_path_factory.mktemp("later"), test_from=day(9))


@pytest.fixture(scope="module")
def warm(later: Path, long: Recipe, champion: Path, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return run(later, long, tmp_path_factory.mktemp("warm"), champion)


def loaded(folder: Path) -> Champion:
    found = Champion.load(folder)
    assert isinstance(found, Champion)
    return found


def test_only_what_is_new_is_measured_on_and_then_learned(warm: FitResult, champion: Path) -> None:
    assert phases(warm) == [("tabular refit", 1), ("tabular refit", 2), ("finetuning refit", 1)]
    manifest, _ = verify_bundle(warm.bundle)
    assert manifest.champion == champion.name
    assert (manifest.consecutive_warm_starts, warm.consecutive_warm_starts) == (1, 1)
    assert manifest.data[VALIDATION]["from"] == day(8).isoformat()
    assert manifest.data[TRAIN]["to"] == day(7).isoformat()
    assert manifest.data["learned_until"] == day(9).isoformat()
    assert warm.metrics["auc"] > 0.7


def test_where_nothing_can_be_searched_for_the_champions_choices_hold(
    warm: FitResult, champion: Path
) -> None:
    trees = loaded(champion).predictor.model.trees
    assert warm.metrics["num_trees"] == trees.num_trees > 0
    assert Predictor.load(warm.bundle).model.trees.num_trees == trees.num_trees
    chosen = verify_bundle(champion)[0].metrics["finetuning_epochs"]
    assert warm.metrics["finetuning_epochs"] == min(chosen, 1)


def test_a_refit_begins_as_its_parent_did(
    warm: FitResult, champion: Path, later: Path, long: Recipe, tmp_path: Path
) -> None:
    final = run(later, long, tmp_path, champion, parent=warm.bundle)
    assert (final.initialization, final.metrics) == (warm.initialization, warm.metrics)
    assert verify_bundle(final.bundle)[0].parent == warm.hash
    with pytest.raises(BundleError, match="would begin from scratch; train it again"):
        run(later, long, tmp_path, parent=warm.bundle)


def test_no_row_that_is_measured_on_was_learned_from(champion: Path, later: Path) -> None:
    start, data = loaded(champion), read_examples(later)
    timestamps = data.rows["event_timestamp"].to_numpy()
    after = start.after(data)
    assert timestamps[after.part == VALIDATION].min() >= start.learned_until
    assert timestamps[after.part == TEST].min() >= start.learned_until
    assert (after.part == TEST).sum() == (data.part == TEST).sum()
    assert timestamps[data.part == VALIDATION].min() < start.learned_until  # so there was something to move


def test_the_weights_mean_what_they_meant(champion: Path, later: Path, long: Recipe, tmp_path: Path) -> None:
    start = loaded(champion)
    data = start.after(read_examples(later))
    begun = FitContext(data, shortened(long), start)
    begun.transforms.write(tmp_path / "transforms.json")
    assert (champion / "transforms.json").read_bytes() == (tmp_path / "transforms.json").read_bytes()
    known = Predictor.load(champion).score_examples(data, data.part == VALIDATION)
    scores, model = begun.validation_scores(), loaded(champion).predictor.model
    slope, shift = float(model.slope), float(model.intercept)
    assert np.allclose(slope * scores.text_logit, known.text_logit, atol=1e-4)
    assert np.allclose(slope * scores.tabular_logit + shift, known.tabular_logit, atol=1e-4)


def test_a_warm_start_learns_something(warm: FitResult, champion: Path) -> None:
    own, now = (load_file(folder / "model.safetensors") for folder in (champion, warm.bundle))
    for name in ("tabular.first.weight", "text_model.profile.weight"):
        assert not np.array_equal(own[name], now[name]), name


def test_vectors_before_fine_tuning_stay_the_pretrained_models(warm: FitResult, fitted: FitResult) -> None:
    before, from_scratch = (
        load_file(folder / PRETRAINED_EMBEDDINGS)["vectors"] for folder in (warm.bundle, fitted.bundle)
    )
    assert np.allclose(before, from_scratch, atol=1e-5)


def test_a_warm_bundle_serves_what_was_measured(warm: FitResult, later: Path) -> None:
    predictor, data = Predictor.load(warm.bundle), read_examples(later)
    scores = predictor.score_examples(data)
    assert np.isfinite(scores.probability).all()
    from training.evaluation.metrics import metrics_of_logits

    rows = data.part == TEST
    metrics = metrics_of_logits(
        data.labels[rows],
        scores.text_logit + scores.tabular_logit,
        data.rows["query_group_id"].to_numpy()[rows],
    )
    assert metrics["auc"] is not None and metrics["auc"] > 0.7


def test_new_rows_before_the_validation_part_are_searched_with_early_stopping(
    champion: Path, long: Recipe, tmp_path: Path
) -> None:
    later = write_examples(tmp_path / "examples", test_from=day(12))  # validation from the ninth or tenth
    result = run(later, long, tmp_path, champion)
    names = {"tabular", "finetuning"}
    assert {phase for phase, _ in phases(result)} == names | {f"{name} refit" for name in names}
    assert all(epoch <= 2 for _, epoch in phases(result))


def test_finetuning_replays_as_many_old_rows_as_there_are_new_ones(champion: Path, later: Path) -> None:
    start, data = loaded(champion), read_examples(later)
    rows = np.flatnonzero(data.part != TEST)
    new = np.flatnonzero(data.rows["event_timestamp"].to_numpy() == np.datetime64(day(8)))
    chosen = start.with_replay(data, rows, seed=0)
    assert set(new) <= set(chosen) <= set(rows)
    assert len(chosen) == len(set(chosen)) == 2 * len(new)
    assert not np.array_equal(chosen, start.with_replay(data, rows, seed=1))
    assert len(start.with_replay(data, np.flatnonzero(data.part == TRAIN), seed=0)) == 0


def test_texts_that_the_champion_never_saw_are_read(champion: Path, long: Recipe, tmp_path: Path) -> None:
    candidates = [f"Coupon for {subject}, offer {number}" for number in range(2) for subject in SUBJECTS]
    texts = [*candidates[:-1], "Coupon for dog flowers", *(f"show me {s}" for s in SUBJECTS), *SUBJECTS]
    later = write_examples(tmp_path / "examples", test_from=day(9), texts=texts)
    result = run(later, long, tmp_path, champion)
    assert result.consecutive_warm_starts == 1
    assert np.isfinite(load_file(result.bundle / "embeddings.safetensors")["vectors"].numpy()).all()


@pytest.mark.parametrize("epochs_before_the_kill", [1, 3])
def test_a_killed_warm_start_goes_on_to_the_same_weights(
    epochs_before_the_kill: int, later: Path, long: Recipe, champion: Path, warm: FitResult, tmp_path: Path
) -> None:
    result = goes_on(lambda: run(later, long, tmp_path, champion), killed_after=epochs_before_the_kill)
    assert result.history == warm.history
    assert weights_of(result) == weights_of(warm)


def manifest_with(folder: Path, champion: Path, **changes: Any) -> Path:
    """A copy of the champion whose manifest says something else."""
    shutil.copytree(champion, folder)
    manifest, _ = verify_bundle(champion)
    write_manifest(folder, replace(manifest, **changes))
    return folder


Change = Callable[[Examples, Recipe], tuple[Examples, Recipe]]


def until_the_eighth(data: Examples, recipe: Recipe) -> tuple[Examples, Recipe]:
    known = (data.rows["event_timestamp"] < day(8)).to_numpy()
    return replace(data, part=np.where(known, data.part, TEST)), recipe


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda data, r: (replace(data, schema=replace(data.schema, source="another shop")), r),
            "another shop",
        ),
        (
            lambda data, r: (replace(data, schema=replace(data.schema, numeric=data.schema.numeric[1:])), r),
            "numeric features differ: user_events",
        ),
        (
            lambda data, r: (data, r.updated(tabular_model={"hidden_size": 8})),
            "tabular_model.hidden_size was 16 and is 8",
        ),
        (until_the_eighth, "0 rows of the validation part are newer"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Change, expected: str, champion: Path, later: Path, long: Recipe
) -> None:
    problem = loaded(champion).incompatibility(*change(read_examples(later), long))
    assert problem is not None and expected in problem


def test_what_may_differ_and_what_is_of_no_use_without_a_refit(
    champion: Path, later: Path, long: Recipe, tmp_path: Path
) -> None:
    data = read_examples(later)
    assert loaded(champion).incompatibility(data, long.updated(seed=99)) is None
    known = loaded(champion).predictor.manifest.recipe
    known = {**known, "early_stopping": {**known["early_stopping"], "refit": False}}
    start = loaded(manifest_with(tmp_path / "champion", champion, recipe=known))
    assert "without refit" in str(start.incompatibility(data, long.updated(early_stopping={"refit": False})))


def test_after_enough_warm_starts_one_is_from_scratch(
    champion: Path, later: Path, long: Recipe, tmp_path: Path
) -> None:
    often = manifest_with(
        tmp_path / "champion", champion, consecutive_warm_starts=long.warm_start.max_consecutive
    )
    result = run(later, long, tmp_path, often)
    assert result.consecutive_warm_starts == 0
    assert ("tabular", 1) in phases(result)
    assert verify_bundle(result.bundle)[0].champion is None
    assert "from scratch, not from champion" in result.initialization


def test_a_champion_of_older_code_is_not_begun_with(
    champion: Path, later: Path, long: Recipe, tmp_path: Path
) -> None:
    manifest, _ = verify_bundle(champion)
    data = {name: value for name, value in manifest.data.items() if name != "learned_until"}
    silent = loaded(manifest_with(tmp_path / "silent", champion, data=data))
    assert "until when" in str(silent.incompatibility(read_examples(later), long))
    older = manifest_with(tmp_path / "older", champion, recipe={"tabular_model": {"ensemble_size": 2}})
    assert "is missing; add it" in str(Champion.load(older))


def test_an_altered_champion_is_refused(champion: Path, later: Path, long: Recipe, tmp_path: Path) -> None:
    altered = tmp_path / "champion"
    shutil.copytree(champion, altered)
    (altered / "recipe.json").write_text(json.dumps({}))
    with pytest.raises(BundleError, match="altered"):
        run(later, long, tmp_path, altered)


@pytest.mark.parametrize(
    ("negative_days", "test_from", "expected"),
    [((8, 8), 9, "0 of them positive"), ((1, 6), 10, "most positives are new: ")],
)
def test_too_little_is_new_or_nearly_everything(
    negative_days: tuple[int, int],
    test_from: int,
    expected: str,
    champion: Path,
    long: Recipe,
    tmp_path: Path,
) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rows.loc[rows["event_timestamp"].dt.day.between(*negative_days), "label"] = 0
    later = write_examples(tmp_path / "examples", rows=rows, test_from=day(test_from))
    assert expected in str(loaded(champion).incompatibility(read_examples(later), long))
