"""Pairs of text and query: what came of each, by weight."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import write_examples
from training.data.dataset import read_examples
from training.data.text_pairs import distinct_pairs, observed_pairs


def test_pairs_are_those_of_their_rows_and_count_every_outcome(tmp_path: Path) -> None:
    data = read_examples(write_examples(tmp_path / "examples"))
    rows = np.arange(0, len(data.labels), 2)
    text, query = (data.columns.at(name, rows) for name in ("text_id", "query_id"))
    pairs, place = distinct_pairs(data.columns, rows)
    assert np.array_equal(pairs[place], np.stack([text, query], axis=1))
    assert len(np.unique(pairs, axis=0)) == len(pairs) and (query == -1).any() and (query >= 0).any()

    label, weight = data.labels[rows], np.linspace(0.5, 2, len(rows))
    found = observed_pairs(data.columns, rows, label, weight, most=len(pairs), seed=0)
    for pair, positive, negative in zip(*found, strict=True):
        here = (text == pair[0]) & (query == pair[1])
        assert positive == pytest.approx(weight[here] @ label[here], rel=1e-5)
        assert positive + negative == pytest.approx(weight[here].sum(), rel=1e-5)

    few = observed_pairs(data.columns, rows, label, weight, most=5, seed=0)
    assert len(few.pairs) == 5 and set(map(tuple, few.pairs)) <= set(map(tuple, pairs))
