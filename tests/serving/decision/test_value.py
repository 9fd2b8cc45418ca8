"""Probability x value - cost, by hand."""

import numpy as np
import pytest

from serving.decision.value import item_costs, item_values, scores

NAN = np.nan
PROBABILITY = np.array([0.5, 0.1, 0.2], dtype=np.float32)


def test_worth_is_probability_times_value_less_cost():
    values, costs = item_values(np.array([2.0, 30.0, 0.0])), item_costs(np.array([0.25, NAN, 0.5]))
    np.testing.assert_allclose(scores(PROBABILITY, values, costs), [0.75, 3.0, -0.5], rtol=1e-6)


def test_without_values_it_is_the_probability():
    values, costs = item_values(np.full(3, NAN)), item_costs(np.full(3, NAN))
    np.testing.assert_array_equal(scores(PROBABILITY, values, costs), PROBABILITY.astype(np.float64))
    assert scores(PROBABILITY, values, costs).dtype == np.float64


def test_an_item_without_a_value_counts_with_the_median():
    np.testing.assert_array_equal(item_values(np.array([1.0, NAN, 3.0, 100.0])), [1.0, 3.0, 3.0, 100.0])


@pytest.mark.parametrize(("of", "name"), [(item_values, "value"), (item_costs, "cost")])
def test_an_endless_number_is_refused(of, name):
    with pytest.raises(ValueError, match=f"the {name} of item 1 is -inf"):
        of(np.array([1.0, -np.inf]))
    assert len(of(np.array([]))) == 0
