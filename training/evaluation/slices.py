"""Groups of test rows to report quality by."""

import numpy as np

from training.data.dataset import Examples
from training.data.split import TRAIN

MOST_VALUES = 20  # of a slice column, the most frequent ones


def slices(data: Examples, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Masks over `rows` by name: new, light, medium and heavy shoppers, and each value of the slice columns.

    A new shopper has no past event. The others are parted at the terciles of the training part's activity,
    so a group may be empty later.
    """
    every = slice(None)
    activity = np.nan_to_num(data.columns.series(data.schema.activity, every).to_numpy(np.float64))
    known = activity[(data.part == TRAIN) & (activity > 0)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if known.size else (0.0, 0.0)
    here = activity[rows]
    groups = {
        "new shoppers": here <= 0,
        "light shoppers": (here > 0) & (here <= low),
        "medium shoppers": (here > low) & (here <= high),
        "heavy shoppers": (here > 0) & (here > high),
    }
    for column in data.schema.slices:
        values = data.columns.series(column, rows)
        for value in values.value_counts().index[:MOST_VALUES]:
            groups[f"{column}={value}"] = (values == value).to_numpy(dtype=bool)
    return groups
