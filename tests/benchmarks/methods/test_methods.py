"""The parts of the table of methods: its rows and recipes."""

from pathlib import Path

import pytest

from tests.benchmarks.harness import shared_data
from tests.benchmarks.methods import fits as methods
from training.config.recipe import read_recipe
from training.config.settings import nested
from training.data.dataset import read_examples
from training.data.split import TEST, TRAIN, VALIDATION


def test_no_turn_is_in_two_parts(tmp_path: Path) -> None:
    folder = shared_data(methods.DATA)
    if not (folder / methods.TURNS).exists():
        pytest.skip(f"{folder} is not there (SHARED_DATA names the folder above it)")
    data = read_examples(methods.write_turns(tmp_path))
    counts = {part: int((data.part == part).sum()) for part in (TRAIN, VALIDATION, TEST)}
    assert counts[TRAIN] == 512 and counts[VALIDATION] == 200 and counts[TEST] == 500
    assert len(set(data.texts)) == len(data.texts) == len(data.rows)
    for part in counts:
        assert data.labels[data.part == part].mean() == pytest.approx(0.25)


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods_are_recipes(method: str) -> None:
    settings, name, rates = methods.METHODS[method]
    for rate in rates:
        recipe = read_recipe(None).updated(**nested({**methods.COMMON, **settings, name: rate}))
        assert recipe.flat()[name] == rate
