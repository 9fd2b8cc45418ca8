"""The sanity gate of a refit, on probabilities by hand."""

import numpy as np
import pytest

from training.evaluation.metrics import auc
from training.evaluation.sanity import agreement, calibration, lowest_auc

PARENT = np.linspace(0.01, 0.2, 200)


def test_a_refit_that_knows_a_little_more_agrees_with_its_parent() -> None:
    order, apart = agreement(PARENT * 1.1 + 0.001, PARENT, 0.7)
    assert order.passed and order.value == pytest.approx(1.0)
    assert apart.passed and apart.value == pytest.approx(0.1 * PARENT.mean() + 0.001)


@pytest.mark.parametrize("broken", [PARENT[::-1], np.full(200, 0.1), np.full(200, np.nan)])
def test_one_that_orders_otherwise_or_says_no_numbers_does_not(broken: np.ndarray) -> None:
    order, apart = agreement(broken, PARENT, 0.7)
    assert not order.passed
    assert apart.passed == bool(np.isfinite(broken).all())


def test_probabilities_of_another_height_are_told() -> None:
    order, apart = agreement(PARENT * 4, PARENT, 0.7)
    assert order.passed and not apart.passed


def test_without_an_order_in_the_parent_there_is_none_to_keep() -> None:
    order, apart = agreement(np.full(5, 0.3), np.full(5, 0.3), 0.5)
    assert order.passed and apart.passed and order.value is None


def test_an_order_that_may_be_chance_need_not_be_kept() -> None:
    rng = np.random.default_rng(0)
    label, weight = (rng.random(200) < 0.3).astype(float), np.ones(200)
    noise, right = rng.random(200) * 0.1 + 0.2, label * 0.2 + rng.random(200) * 0.3
    assert lowest_auc(label, noise, weight) < 0.5 < lowest_auc(label, right, weight)
    assert lowest_auc(np.zeros(200), noise, weight) == 0.0
    order, _ = agreement(noise[::-1], noise, lowest_auc(label, noise, weight))
    assert order.passed and order.value is None and "no order that is worth keeping" in order.reason
    order, _ = agreement(right[::-1], right, lowest_auc(label, right, weight))
    assert not order.passed
    order, _ = agreement(np.full(200, np.nan), noise, 0.4)
    assert not order.passed


def test_the_standard_error_is_that_of_draws() -> None:
    rng = np.random.default_rng(1)
    label = np.r_[np.ones(40), np.zeros(160)]
    areas = []
    for _ in range(400):
        score = np.r_[rng.normal(0.8, 1, 40), rng.normal(0, 1, 160)]
        areas.append((auc(label, score), lowest_auc(label, score, np.ones(200))))
    found, lowest = np.array(areas).T
    assert ((found - lowest).mean() / 1.96) == pytest.approx(
        found.std(), rel=0.25
    )  # of exponential scores exact


def test_calibration_counts_weights_and_allows_for_chance() -> None:
    label, weight = (
        np.array([0.0, 1.0, 0.1]),
        np.array([1.0, 1.0, 1000.0]),
    )  # the last row: 100 of 1,000 clicked
    right = calibration(label, weight, np.array([0.5, 0.5, 0.1]))
    assert right.passed and right.value == pytest.approx(0.0)
    # expected 201, observed 101: chance is 3 * sqrt(160.5), and a quarter of 101 is allowed
    wrong = calibration(label, weight, np.array([0.5, 0.5, 0.2]))
    assert not wrong.passed and wrong.bound == pytest.approx(25.25 + 3 * np.sqrt(160.5))
    assert not calibration(label, weight, np.full(3, np.nan)).passed
