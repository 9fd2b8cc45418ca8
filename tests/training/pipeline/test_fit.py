"""Fitting: what is learned, what is written, how a killed run goes on, and bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from expectations.contracts.bundle import verify_bundle
from expectations.contracts.examples import ROWS
from expectations.errors import DataError, RecommenderError, SchemaError, SettingError, TransientError
from tests.training.killed import goes_on, weights_of
from tests.training.synthetic import make_rows, write_encoder, write_examples
from training.config.recipe import Recipe
from training.inference.predictor import Predictor
from training.pipeline import trainer
from training.pipeline.fit import FitResult, fit
from training.runtime.checkpoint import Checkpoints


def run(examples: Path, recipe: Recipe, folder: Path) -> FitResult:
    return fit(
        examples, recipe, out=folder / "out", work=folder / "work", log_dir=folder / "tb", progress=False
    )


def losses(result: FitResult) -> list[float]:
    return [entry["train_loss"] for entry in result.history]


def test_it_learns_and_writes_a_whole_bundle(fitted: FitResult) -> None:
    manifest, digest = verify_bundle(fitted.bundle)
    assert digest == fitted.hash == fitted.bundle.name
    assert manifest.metrics["auc"] > 0.7
    assert manifest.data["test"]["num_rows"] > 0
    assert {"model.safetensors", "transforms.json", "embeddings.safetensors"} <= set(manifest.files)
    phases = {"next_interaction_pretraining", "tabular", "finetuning"}
    assert {entry["phase"] for entry in fitted.history} == phases | {f"{phase} refit" for phase in phases}
    assert not list(fitted.bundle.parent.glob(".writing-*"))
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in manifest.files)
    assert list((fitted.bundle.parent.parent / "tb").glob("events.*"))


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
    examples: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer._run_epoch

    def stop(*arguments: Any, **named: Any) -> Any:
        if arguments[2] == 1:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(trainer, "_run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(examples, recipe, tmp_path)
    monkeypatch.setattr(trainer, "_run_epoch", real)
    other = recipe.updated(
        seed=99, early_stopping={"refit": False}, finetuning={"epochs": 1}, tabular_model={"epochs": 1}
    )
    assert [entry["epoch"] for entry in run(examples, other, tmp_path).history] == [1, 2, 1, 1]


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from training.runtime import checkpoint

    checkpoints = Checkpoints(tmp_path, "key")
    checkpoints.save({"x": torch.ones(3)}, checkpoint.TrainingState(phase="tabular", epoch=1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TransientError, match="No space left"):
        checkpoints.save({"x": torch.zeros(3)}, checkpoint.TrainingState(phase="tabular", epoch=2))
    tensors, progress = checkpoints.load() or ({}, None)
    assert progress is not None and progress.epoch == 1 and tensors["x"].sum() == 3
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]


def test_examples_without_a_category_are_learned_from(recipe: Recipe, tmp_path: Path) -> None:
    examples = write_examples(tmp_path / "examples", categorical=(), slices=())
    short = recipe.updated(
        early_stopping={"refit": False},
        pretraining={"next_interaction_epochs": 0},
        tabular_model={"epochs": 1},
        finetuning={"epochs": 1},
    )
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
def test_any_number_of_layers_may_learn(layers: int, examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    short = recipe.updated(
        encoder={"trainable_layers": layers},
        early_stopping={"refit": False},
        finetuning={"epochs": 1},
        tabular_model={"epochs": 1},
    )
    assert run(examples, short, tmp_path).bundle.is_dir()


def broken(tmp_path: Path, change: str) -> Path:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    before_validation = rows["event_timestamp"] < pd.Timestamp(2020, 1, 7)
    if change == "one class in training":
        rows.loc[before_validation, "label"] = 0
    elif change == "one class in validation":
        rows.loc[~before_validation, "label"] = 0
    elif change == "one timestamp":
        rows["event_timestamp"] = pd.Timestamp(2020, 1, 2)
    elif change == "missing feature":
        rows = rows.drop(columns="cross_visits")
    elif change == "no rows":
        rows = rows.head(0)
    elif change == "label 2":
        rows["label"] = 2
    elif change == "text beyond":
        rows["text_id"] = 99
    return write_examples(tmp_path / "examples", rows=rows)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("one class in training", DataError, "train part, 0 are positive"),
        ("one class in validation", DataError, "validation part, 0 are positive"),
        ("one timestamp", DataError, "no validation part"),
        ("missing feature", SchemaError, "cross_visits"),
        ("no rows", DataError, "no rows"),
        ("label 2", DataError, "neither 0 nor 1"),
        ("text beyond", DataError, "text_id outside"),
    ],
)
def test_bad_examples_are_refused(
    change: str, error: type[RecommenderError], words: str, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        run(broken(tmp_path, change), recipe, tmp_path)


def test_unreadable_examples_are_refused(examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="schema"):
        run(tmp_path / "nowhere", recipe, tmp_path)
    folder = write_examples(tmp_path / "examples")
    (folder / ROWS).write_bytes(b"PAR1 not really")
    with pytest.raises(SchemaError, match=ROWS):
        run(folder, recipe, tmp_path)
    (folder / ROWS).unlink()
    with pytest.raises(SchemaError, match="does not exist"):
        run(folder, recipe, tmp_path)
    assert pq.read_table(examples / ROWS).num_rows > 0


@pytest.mark.parametrize("name", ["/no/such/folder", "package:no_such_package_x"])
def test_an_encoder_that_is_not_there_is_named(
    name: str, examples: Path, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"no_such|/no/such"):
        run(examples, recipe.updated(encoder={"name": name}), tmp_path)


def test_an_encoder_without_weights_is_named(examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SettingError, match="cannot be loaded"):
        run(examples, recipe.updated(encoder={"name": str(folder)}), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    wild = recipe.updated(tabular_model={"learning_rate": 1e30, "epochs": 8})
    with pytest.raises(SettingError, match="learning rates"):
        run(examples, wild, tmp_path)


def test_history_is_json(fitted: FitResult) -> None:
    assert json.loads(json.dumps(fitted.history)) == fitted.history
