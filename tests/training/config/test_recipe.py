"""The recipe's checks and the parts in time."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.errors import DataError, SettingError
from tests.training.synthetic import SCHEMA
from training.config.recipe import Recipe, read_recipe, recipe_from
from training.data.split import temporal_split


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("leerning_rate = 1\n", encoding="utf-8")
    with pytest.raises(SettingError, match="leerning_rate"):
        read_recipe(path)
    path.write_text("[finetuning]\nleerning_rate = 1\n", encoding="utf-8")
    with pytest.raises(
        SettingError, match=r"'finetuning\.leerning_rate'; known settings of \[finetuning\]: "
    ):
        read_recipe(path)


def test_a_value_in_place_of_a_section_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('encoder = "some/folder"\n', encoding="utf-8")
    with pytest.raises(SettingError, match=r"encoder is 'some/folder'; write it as a section \[encoder\]"):
        read_recipe(path)


@pytest.mark.parametrize(
    "line",
    [
        "tabular_model.ensemble_size = 0",
        "tabular_model.ensemble_size = 2.5",
        "early_stopping.refit = 1",
        "finetuning.negative_sampling_rate = 0.0",
        'early_stopping.metric = "f1"',
        'encoder.name = ""',
        "encoder.trainable_layers = -2",
        "optimizer.clip_norm = inf",
        "seed = ",
    ],
)
def test_a_bad_value_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(SettingError, match=r"recipe"):
        read_recipe(path)


def test_a_recipe_survives_its_values() -> None:
    recipe = read_recipe(None)
    assert recipe_from(recipe.as_dict(), where="manifest") == recipe
    with pytest.raises(SettingError, match=r"'tabular_model\.ensemble_size' is missing"):
        recipe_from(without(recipe, "tabular_model", "ensemble_size"), where="manifest")
    with pytest.raises(SettingError, match="'tabular_model' is missing"):
        recipe_from({k: v for k, v in recipe.as_dict().items() if k != "tabular_model"}, where="manifest")


def without(recipe: Recipe, section: str, setting: str) -> dict[str, Any]:
    values = recipe.as_dict()
    del values[section][setting]
    return values


def test_a_bundle_made_before_token_dropout_had_none() -> None:
    recipe = read_recipe(None)
    before = without(recipe, "encoder", "token_dropout")
    assert recipe_from(before, where="manifest").encoder.token_dropout == 0


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")


def days(*numbers: int) -> np.ndarray:
    return np.array([np.datetime64(datetime(2020, 1, number), "us") for number in numbers])


def test_the_cut_is_the_moment_nearest_to_the_share() -> None:
    moments = days(1, 1, 1, 1, 2, 3, 3, 3, 9, 9)
    found = temporal_split(moments, replace(SCHEMA, validation_fraction=0.4))
    # Day 3 holds 3 of 8 rows before the test part, days 2 and 3 hold 4.
    assert list(found) == ["train"] * 5 + ["validation"] * 3 + ["test"] * 2


def test_one_moment_cannot_be_cut() -> None:
    with pytest.raises(DataError, match="validation"):
        temporal_split(days(1, 1, 9), SCHEMA)
    with pytest.raises(DataError, match="test_from"):
        temporal_split(days(9, 10), SCHEMA)
    with pytest.raises(DataError, match="no rows"):
        temporal_split(days(), SCHEMA)


@given(
    st.lists(st.integers(1, 28), min_size=3, max_size=40).filter(lambda d: len(set(d)) > 2),
    st.floats(0.05, 0.9),
)
def test_parts_are_in_order_and_share_no_moment(numbers: list[int], share: float) -> None:
    moments = days(*numbers)
    found = temporal_split(moments, replace(SCHEMA, test_from=None, validation_fraction=share))
    last = None
    for part in ("train", "validation", "test"):
        here = moments[found == part]
        assert len(here)
        assert last is None or here.min() > last
        last = here.max()
