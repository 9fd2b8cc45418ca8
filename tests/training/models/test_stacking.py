"""Scales of the logit's parts: what says something counts, what is noise or worse does not."""

import numpy as np
import pytest
from scipy.special import expit

from training.models.stacking import MAX_SCALE, dispersion, fit_stacking

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


def test_what_many_impressions_seem_to_say_is_held_against_how_much_rows_differ():
    rng = np.random.default_rng(1)
    logit = rng.normal(size=200)
    impressions = np.full(200, 5000.0)
    noise = 0.3 * rng.normal(size=200)  # of each row, which no part knows
    click_rate = expit(logit - 3 + noise)
    clicks = rng.binomial(5000, click_rate) / impressions
    assert dispersion(clicks, impressions, expit(logit - 3)) > 5
    assert dispersion(rng.binomial(5000, click_rate) / impressions, impressions, click_rate) < 1.3
    assert dispersion((rng.random(200) < click_rate).astype(float), np.ones(200), click_rate) == 1.0
    scales = np.array(
        [scales_of(np.stack([logit, rng.normal(size=200)], 1), clicks, impressions) for _ in range(30)]
    )
    assert (scales[:, 1] > 0).sum() <= 3  # a gain of 2 by chance: 2.3 % of parts
    assert scales[:, 0] == pytest.approx(1, abs=0.15)


def test_a_part_that_hardly_varies_is_not_stretched_without_bound():
    rng = np.random.default_rng(2)
    logit = rng.normal(size=NUM_ROWS)
    (scale,) = scales_of(0.01 * logit[:, None], (rng.random(NUM_ROWS) < expit(logit)).astype(float))
    assert scale == MAX_SCALE


def test_of_a_few_rows_what_was_learned_elsewhere_says_more_than_a_constant():
    logit = np.linspace(-1, 1, 60)
    label = (np.arange(60) % 10 < 2 + 2 * (logit > 0)).astype(
        float
    )  # 6 and 12 positives: little to be sure of
    assert scales_of(logit[:, None], label)[0] > 0
    assert scales_of(-logit[:, None], label)[0] == 0
    assert scales_of(np.stack([logit, np.tile([1.0, -1.0], 30)], 1), label)[1] == 0


def test_a_dozen_positives_do_not_tell_how_far_a_part_is_stretched():
    rng = np.random.default_rng(3)
    chance = [
        scales_of(0.1 * rng.normal(size=(3000, 1)), (rng.random(3000) < 0.004).astype(float))
        for _ in range(60)
    ]
    assert 1 < np.max(chance) < 2
