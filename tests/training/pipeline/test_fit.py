"""Fitting: what is learned, what is written, and how a killed run goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from expectations.contracts.bundle import verify_bundle
from expectations.errors import BundleError, SettingError
from tests.training.fits import goes_on, run, weights_of
from tests.training.synthetic import make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.data.split import TEST
from training.evaluation.metrics import log_loss
from training.inference.bundle import PRETRAINED_EMBEDDINGS
from training.inference.predictor import Predictor
from training.pipeline.fit import FitResult


def losses(result: FitResult) -> list[float]:
    return [entry["train_loss"] for entry in result.history if entry["epoch"]]


def test_it_learns_and_writes_a_whole_bundle(fitted: FitResult) -> None:
    manifest, digest = verify_bundle(fitted.bundle)
    assert digest == fitted.hash == fitted.bundle.name
    assert manifest.metrics["auc"] > 0.7
    assert manifest.data["test"]["num_rows"] > 0
    assert {"model.safetensors", "transforms.json", "embeddings.safetensors"} <= set(manifest.files)
    phases = {"next_interaction_pretraining", "tabular", "finetuning"}
    assert {entry["phase"] for entry in fitted.history} == phases | {"tabular refit", "finetuning refit"}
    assert not list(fitted.bundle.parent.glob(".writing-*"))
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in manifest.files)
    assert list((fitted.bundle.parent.parent / "work" / "tb").glob("events.*"))


def test_the_same_seed_gives_the_same_loss_and_another_does_not(
    examples: Path, recipe: Recipe, fitted: FitResult, tmp_path: Path
) -> None:
    assert losses(run(examples, recipe, tmp_path / "a")) == losses(fitted)
    other = recipe.updated(seed=recipe.seed + 1, early_stopping={"refit": False})
    assert losses(run(examples, other, tmp_path / "b"))[0] != losses(fitted)[0]


@pytest.mark.parametrize("epochs_before_the_kill", [1, 2, 4, 8, 9, 11, 12])
def test_a_killed_run_goes_on_to_the_same_weights(
    epochs_before_the_kill: int, examples: Path, recipe: Recipe, fitted: FitResult, tmp_path: Path
) -> None:
    result = goes_on(lambda: run(examples, recipe, tmp_path), killed_after=epochs_before_the_kill)
    assert result.history == fitted.history
    assert weights_of(result) == weights_of(fitted)


def test_the_checkpoint_of_another_recipe_is_not_used(
    examples: Path, recipe: Recipe, short: Recipe, tmp_path: Path
) -> None:
    recipes = iter([recipe, short.updated(seed=99)])
    result = goes_on(lambda: run(examples, next(recipes), tmp_path), killed_after=3)
    assert [(entry["phase"], entry["epoch"]) for entry in result.history] == [
        ("tabular", 1),
        ("finetuning", 0),
        ("finetuning", 1),
    ]


def test_examples_without_a_category_are_learned_from(short: Recipe, tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", categorical=(), slices=())
    assert run(examples, short, tmp_path).metrics["auc"] is not None


def test_odd_values_and_texts_are_learned_from(recipe: Recipe, tmp_path: Path) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rows.loc[:40, "item_popularity"] = np.inf
    rows.loc[40:80, "item_popularity"] = -np.inf
    rows["cross_visits"] = np.float32(np.nan)
    rows["item_kind"] = None
    texts = ["", "coupon " * 1500, "优惠券", *(f"coupon {number}" for number in range(13))]
    examples = write_examples(tmp_path / "examples", rows=rows, texts=texts)
    with pytest.warns(UserWarning, match=r"unknown in item_popularity \(81 rows\)"):
        result = run(examples, recipe.updated(early_stopping={"refit": False}), tmp_path)
    assert all(np.isfinite(loss) for loss in losses(result))
    assert np.isfinite(result.metrics["log_loss"])
    _, contributions = Predictor.load(result.bundle).tabular_contributions(rows.head(3))
    assert np.isfinite(contributions).all() and (contributions[:, 2] == 0).all()


@pytest.mark.parametrize("layers", [0, 2, -1])
def test_any_number_of_layers_may_learn(layers: int, examples: Path, short: Recipe, tmp_path: Path) -> None:
    assert run(examples, short.updated(encoder={"trainable_layers": layers}), tmp_path).bundle.is_dir()


def test_a_loss_that_is_no_number_stops_the_run(examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    wild = recipe.updated(tabular_model={"learning_rate": 1e30, "epochs": 8})
    with pytest.raises(SettingError, match="learning rates"):
        run(examples, wild, tmp_path)


def test_what_is_deployed_has_learned_from_the_test_part_too(
    examples: Path, fitted: FitResult, recipe: Recipe, tmp_path: Path
) -> None:
    final = run(examples, recipe, tmp_path, parent=fitted.bundle)
    manifest, _ = verify_bundle(final.bundle)
    assert manifest.parent == fitted.hash and final.metrics == fitted.metrics
    assert manifest.data["learned_until"] > verify_bundle(fitted.bundle)[0].data["learned_until"]
    assert all(entry["phase"].endswith(" refit") for entry in final.history)
    before = [load_file(one.bundle / PRETRAINED_EMBEDDINGS)["vectors"] for one in (final, fitted)]
    assert torch.equal(*before)
    data = read_examples(examples)
    of_final, of_parent = (Predictor.load(one.bundle).score_examples(data) for one in (final, fitted))
    labels = data.labels[np.asarray(data.part == TEST)]
    assert log_loss(labels, of_final.probability) < log_loss(labels, of_parent.probability)
    with pytest.raises(BundleError, match="another recipe"):
        run(examples, recipe.updated(seed=8), tmp_path, parent=fitted.bundle)
