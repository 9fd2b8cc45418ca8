"""The parts of the benchmark of training speed, on synthetic examples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.harness import machine, markdown
from tests.benchmarks.training.bench import QUICK, Bench
from tests.benchmarks.training.textbook import Drawn, Textbook, WrittenRows, as_if_all
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.data.split import TRAIN


def test_the_textbook_learns_from_written_rows(examples: Path, encoder: Path) -> None:
    data = read_examples(examples)
    drawn = Drawn.of(data.labels, np.flatnonzero(data.part == TRAIN), negatives=40, seed=0)
    assert data.labels[drawn.rows].sum() == data.labels[data.part == TRAIN].sum()
    every = as_if_all(data.labels, drawn)
    negatives = (data.labels[data.part == TRAIN] == 0).sum()
    assert (data.labels[drawn.rows][every] == 0).sum() == pytest.approx(negatives, abs=20)
    textbook = Textbook(str(encoder), seed=0)
    bought, offered = WrittenRows(data, drawn.rows, textbook.tokenizer).texts(int(drawn.rows[1]))
    assert data.texts[data.rows["text_id"].iloc[drawn.rows[1]]] in offered
    assert "bought" in bought
    seen, _ = textbook.fit(data, drawn.rows, sampling_rate=drawn.sampling_rate, seconds=60)
    assert sorted(seen) == drawn.rows.tolist()
    probability = textbook.probabilities(data, drawn.rows)
    assert probability.shape == drawn.rows.shape
    assert ((probability > 0) & (probability < 1)).all()


@pytest.mark.slow
def test_the_speed_of_ours_beside_the_textbook(examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    effort = replace(QUICK, patient_seconds=600.0)  # all its epochs, on a busy machine too
    bench = Bench(examples, recipe, effort, tmp_path / "work", lambda _: None)
    found = bench.run()
    assert found["ours"]["every row"]["rows"] == len(bench.train)
    assert found["ours"]["recipe"]["rows"] <= len(bench.train)  # few negatives are all drawn
    assert found["ours"]["same rows"]["rows"] == found["textbook"]["the recipe's layers"]["rows"]
    assert found["ratio"] == pytest.approx(
        found["ours"]["every row"]["rows_per_second"]
        / found["textbook"]["the recipe's layers"]["rows_per_second"]
    )
    patient = found["textbook"]["with time"]
    assert patient["rows"] == QUICK.patient_epochs * patient["seen"]
    assert found["floor"]["tokens"] <= found["floor"]["padded"]
    facts = {"machine": machine(), "command": "make", "seconds": 1, "quick": True, **found}
    assert f"{found['auc_ours']:.4f}" in markdown("training", facts)
