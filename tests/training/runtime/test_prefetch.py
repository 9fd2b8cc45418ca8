"""Batches that are made ahead: the same fit, and each batch made once."""

import threading

import numpy as np
import pytest

from tests.training.fits import run, weights_of
from training.pipeline import supervised
from training.runtime.prefetch import Prefetch


def test_what_was_begun_is_made_once_in_another_thread():
    made = []

    def make(rows):
        made.append((rows.tolist(), threading.current_thread() is threading.main_thread()))
        return rows.sum()

    ahead = Prefetch(make, ahead=True)
    first, second, third = np.arange(3), np.arange(4), np.arange(5)
    ahead.begin(second)
    assert ahead(second) == 6
    ahead.begin(first)
    ahead.begin(third)
    assert ahead(third) == 10  # the first is no longer wanted
    assert ahead(first) == 3
    assert made == [([0, 1, 2, 3], False), ([0, 1, 2], False), ([0, 1, 2, 3, 4], False), ([0, 1, 2], True)]


def test_on_a_cpu_nothing_is_begun():
    made = []
    now = Prefetch(made.append, ahead=False)
    now.begin(np.arange(3))
    assert made == []
    now(np.arange(3))
    assert len(made) == 1


def test_a_mistake_of_the_thread_is_told_where_the_batch_is_used():
    ahead = Prefetch(lambda rows: rows[7], ahead=True)
    ahead.begin(np.arange(3))
    with pytest.raises(IndexError):
        ahead(np.arange(3))


def test_a_fit_with_batches_made_ahead_is_the_same_fit(fitted, examples, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(supervised, "Prefetch", lambda make, **_: Prefetch(make, ahead=True))
    assert weights_of(run(examples, recipe, tmp_path)) == weights_of(fitted)
