"""What showing an item is worth to the shop: probability x value - cost, in the shop's currency.

    probability   of a positive outcome, calibrated
    value         what one positive outcome brings, `value` of the items table
    cost          what showing the item once costs (postage, a bid), the column that [decision] cost names

Where no item of the catalogue has a value, an outcome counts as 1 and the score is the probability, less the cost.
Where some have one, those without count with the median of those that do: another default would rank the unknown first
or last. An item without a cost costs nothing. Value and cost are a release's: a score does not depend on the other
candidates.

Shapes: N items of the catalogue, n candidates.
"""

import numpy as np


def item_values(values: np.ndarray) -> np.ndarray:
    """What one outcome of each item is worth.

    Args:
        values: (N,) numbers, NaN where none is given.

    Returns:
        (N,) float64 without NaN.

    Raises:
        ValueError: one is infinite.
    """
    values = _finite(values, "value")
    given = values[~np.isnan(values)]
    return np.where(np.isnan(values), np.median(given) if len(given) else 1.0, values)


def item_costs(costs: np.ndarray) -> np.ndarray:
    """What showing each item costs: (N,) float64, 0 where NaN.

    Raises:
        ValueError: one is infinite.
    """
    return np.nan_to_num(_finite(costs, "cost"), nan=0.0)


def scores(probability: np.ndarray, values: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What showing each of n candidates is worth: (n,) float64."""
    found: np.ndarray = probability.astype(np.float64) * values - costs
    return found


def _finite(numbers: np.ndarray, name: str) -> np.ndarray:
    numbers = np.asarray(numbers, dtype=np.float64)
    endless = np.flatnonzero(np.isinf(numbers))
    if len(endless):
        raise ValueError(f"the {name} of item {endless[0]} is {numbers[endless[0]]}; use a finite number")
    return numbers
