"""The parts of the table of methods: its rows, and its page."""

from dataclasses import asdict
from pathlib import Path

import pytest

from tests.benchmarks import methods
from tests.benchmarks.machine import machine
from training.config.recipe import read_recipe
from training.config.settings import nested
from training.data.split import TEST, TRAIN, VALIDATION


def test_no_turn_is_in_two_parts(tmp_path: Path) -> None:
    if not (methods.DATA / methods.TURNS).exists():
        pytest.skip(f"{methods.DATA} is not there (SHARED_DATA names the folder above it)")
    from training.data.dataset import read_examples

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


def test_the_page_has_one_line_for_each_method_at_its_best_rate() -> None:
    runs = [
        methods.Measured(
            method=method,
            rate=rate,
            parameters=1000,
            epoch_seconds=2.0,
            peak_mib=700.0,
            validation_ap=0.8 - rate,
            auc=0.9,
            ap=0.8,
            auc_interval=[0.88, 0.92],
            ap_interval=[0.7, 0.85],
        )
        for method, (_, _, rates) in methods.METHODS.items()
        for rate in rates
    ]
    found = {
        "machine": machine(),
        "rows": {"train": 1, "validation": 1, "test": 1},
        "runs": [asdict(run) for run in runs],
    }
    lines = [line for line in methods.page(found).splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(methods.METHODS)
    assert "| LoRA | 0.001 | 1,000 | 2.0 | 700 | 0.900 (0.880 to 0.920) | 0.800 (0.700 to 0.850) |" in lines
