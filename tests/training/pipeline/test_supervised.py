"""Fine-tuning's batches and loss: whole query groups, and what tells their rows apart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.synthetic import make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.data.sampling import text_batches
from training.models.losses import binary_loss
from training.pipeline.context import FitContext
from training.pipeline.supervised import FinetuningObjective

RNG = np.random.default_rng(0)


@pytest.fixture(name="objective", scope="module")
def _objective(examples: Path, recipe: Recipe) -> FinetuningObjective:
    context = FitContext(read_examples(examples), recipe)
    return FinetuningObjective(context, context.train)


def test_a_batch_has_the_query_groups_of_few_texts_whole() -> None:
    text_id, query_group_id = np.arange(400), np.arange(400) // 4
    rows = RNG.permutation(400)
    batches = text_batches(rows, text_id, query_group_id, num_texts=24, size=2048, rng=RNG)
    assert np.sort(np.concatenate(batches)).tolist() == list(range(400))
    for batch in batches:
        groups, sizes = np.unique(query_group_id[batch], return_counts=True)
        assert (sizes == 4).all() and query_group_id[batch].tolist() == np.repeat(groups, 4).tolist()
    again = text_batches(rows, text_id, query_group_id, num_texts=24, size=2048, rng=RNG)
    assert set(map(tuple, batches)) != set(map(tuple, again))  # in another company


def test_the_parts_of_a_batch_are_whole_query_groups(objective: FinetuningObjective) -> None:
    rows = max(objective.batches(np.random.default_rng(0)), key=len)
    assert objective.split(rows, 1)[0].tolist() == rows.tolist()
    groups = objective.query_group_id[rows]
    for count in (2, 3, 7):
        parts = objective.split(rows, count)
        assert len(parts) == count and np.concatenate(parts).tolist() == rows.tolist()
        assert sum(len(set(objective.query_group_id[part])) for part in parts) == len(set(groups))
    one = rows[groups == groups[0]]
    assert [len(part) for part in objective.split(np.tile(one, 5), 5)] == [
        len(one)
    ] * 5  # too long to be whole


def test_the_loss_of_a_batch_is_that_of_its_parts(objective: FinetuningObjective) -> None:
    rows = max(objective.batches(np.random.default_rng(0)), key=len)
    place = np.flatnonzero(np.diff(objective.query_group_id[rows]))[len(rows) // 20] + 1
    objective.draw(rows, np.random.default_rng(0))
    with torch.no_grad():
        whole, first, second = (
            float(objective.loss(part, np.random.default_rng(0)))
            for part in (rows, rows[:place], rows[place:])
        )
    assert (first * place + second * (len(rows) - place)) / len(rows) == pytest.approx(whole, rel=1e-4)


def test_where_hardly_any_query_group_tells_rows_apart_each_row_counts_by_itself(
    recipe: Recipe, tmp_path: Path
) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rows["query_group_id"] = np.arange(len(rows))
    context = FitContext(read_examples(write_examples(tmp_path, rows=rows)), recipe)
    objective = FinetuningObjective(context, context.train)
    chosen = context.train[:50]
    with torch.no_grad():
        found = float(objective.loss(chosen, np.random.default_rng(0)))
        batch, text_ids = context.collator.batch(chosen)
        logits = context.model(batch, context.table.vectors[torch.from_numpy(text_ids)])
        labels, weights = context.labels[chosen], context.weights_of(chosen)
        alone = float(binary_loss(logits, labels, weights, objective.sampling_rate))
    assert found == pytest.approx(alone, rel=1e-5)
