"""The recipe's checks and the parts in time."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expectations.errors import DataError, SettingError
from tests.training.synthetic import SCHEMA
from training.config.recipe import Recipe, read_recipe, recipe_from
from training.data.split import temporal_split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("leerning_rate = 1", "leerning_rate"),
        (
            "[finetuning]\nleerning_rate = 1",
            r"'finetuning\.leerning_rate'; known settings of \[finetuning\]: ",
        ),
        ('encoder = "some/folder"', r"encoder is 'some/folder'; write it as a section \[encoder\]"),
        ("tabular_model.ensemble_size = 0", "recipe"),
        ("tabular_model.ensemble_size = 2.5", "recipe"),
        ("early_stopping.refit = 1", "recipe"),
        ("finetuning.negatives_per_positive = 0.0", "recipe"),
        ('early_stopping.metric = "f1"', "recipe"),
        ('encoder.name = ""', "recipe"),
        ("encoder.trainable_layers = -2", "recipe"),
        ("optimizer.clip_norm = inf", "recipe"),
        ("seed = ", "recipe"),
    ],
)
def test_a_bad_setting_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=expected):
        read_recipe(path)
    with pytest.raises(SettingError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")


def test_a_recipe_survives_its_values() -> None:
    recipe = read_recipe(None)
    assert recipe_from(recipe.as_dict(), where="manifest") == recipe
    with pytest.raises(SettingError, match=r"'tabular_model\.ensemble_size' is missing"):
        recipe_from(without(recipe, "tabular_model", "ensemble_size"), where="manifest")
    with pytest.raises(SettingError, match="'tabular_model' is missing"):
        recipe_from({k: v for k, v in recipe.as_dict().items() if k != "tabular_model"}, where="manifest")
    before = without(recipe, "encoder", "token_dropout")  # of bundles made before there was one
    assert recipe_from(before, where="manifest").encoder.token_dropout == 0


def without(recipe: Recipe, section: str, setting: str) -> dict[str, Any]:
    values = recipe.as_dict()
    del values[section][setting]
    return values


def days(*numbers: int) -> np.ndarray:
    return np.array([np.datetime64(datetime(2020, 1, number), "us") for number in numbers])


def test_the_cut_is_the_timestamp_nearest_to_the_fraction() -> None:
    timestamps = days(1, 1, 1, 1, 2, 3, 3, 3, 9, 9)
    found = temporal_split(timestamps, replace(SCHEMA, validation_fraction=0.4))
    # Day 3 holds 3 of 8 rows before the test part, days 2 and 3 hold 4.
    assert list(found) == ["train"] * 5 + ["validation"] * 3 + ["test"] * 2


def test_one_timestamp_cannot_be_cut() -> None:
    for timestamps, expected in (
        (days(1, 1, 9), "validation"),
        (days(9, 10), "test_from"),
        (days(), "no rows"),
    ):
        with pytest.raises(DataError, match=expected):
            temporal_split(timestamps, SCHEMA)


@settings(deadline=None)
@example([1, 1, 1, 1, 1, 1, 2, 3], 0.5)  # nearest to a fifth are the rows of two timestamps
@given(
    st.lists(st.integers(1, 28), min_size=3, max_size=40).filter(lambda d: len(set(d)) > 2),
    st.floats(0.05, 0.9),
)
def test_parts_are_in_order_and_have_no_timestamp_in_common(numbers: list[int], fraction: float) -> None:
    timestamps = days(*numbers)
    found = temporal_split(timestamps, replace(SCHEMA, test_from=None, validation_fraction=fraction))
    last = None
    for part in ("train", "validation", "test"):
        here = timestamps[found == part]
        assert len(here)
        assert last is None or here.min() > last
        last = here.max()
