"""Scales of the logit's parts: what says something counts, what is noise or worse does not."""

import numpy as np
import pytest
from scipy.special import expit

from training.models.stacking import fit_stacking

RNG = np.random.default_rng(0)
NUM_ROWS = 4000


def scales_of(parts, label, weight=None):
    return fit_stacking(parts, label, np.ones(len(label)) if weight is None else weight)[0]


def drawn(logit):
    return (RNG.random(len(logit)) < expit(logit)).astype(float)


def test_parts_get_the_scales_that_made_the_labels():
    parts = RNG.normal(size=(20 * NUM_ROWS, 2))
    scales = scales_of(parts, drawn(parts @ [1.5, 0.5] - 1.0))
    assert scales == pytest.approx([1.5, 0.5], abs=0.06)


def test_noise_and_what_speaks_against_itself_are_left_out():
    parts = RNG.normal(size=(NUM_ROWS, 3))
    scales = scales_of(parts, drawn(parts @ [1.0, -0.5, 0.0]))
    assert scales[0] > 0.8
    assert scales[1] == scales[2] == 0


def test_an_aggregate_counts_like_its_rows():
    logit = RNG.normal(size=200)
    impressions = np.full(200, 50.0)
    clicks = RNG.binomial(50, expit(logit)).astype(float)
    once = scales_of(logit[:, None], clicks / impressions, impressions)
    rows = np.repeat(logit, 50)
    label = np.concatenate([np.r_[np.ones(int(k)), np.zeros(50 - int(k))] for k in clicks])
    assert scales_of(rows[:, None], label) == pytest.approx(once, abs=1e-3)


def test_of_a_few_rows_what_was_learned_elsewhere_says_more_than_a_constant():
    logit = np.linspace(-1, 1, 60)
    # 6 and 12 positives: little to be sure of
    label = (np.arange(60) % 10 < 2 + 2 * (logit > 0)).astype(float)
    assert scales_of(logit[:, None], label)[0] > 0
    assert scales_of(-logit[:, None], label)[0] == 0
    assert scales_of(np.stack([logit, np.tile([1.0, -1.0], 30)], 1), label)[1] == 0
