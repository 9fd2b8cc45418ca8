"""Groups of test rows to report quality by."""

import numpy as np

from training.data.dataset import Examples
from training.data.split import TRAIN

MOST_VALUES = 20  # of a slice column, the most frequent ones


def slices(data: Examples, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Masks over `rows` by name: cold-start, light, medium and heavy users, and each value of the slice columns.

    A cold-start user has no past event. The others are parted at the terciles of the training part's activity,
    so a group may be empty later.
    """
    every = slice(None)
    activity = np.nan_to_num(data.columns.series(data.schema.activity, every).to_numpy(np.float64))
    known = activity[(data.part == TRAIN) & (activity > 0)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if known.size else (0.0, 0.0)
    here = activity[rows]
    masks = {
        "cold-start users": here <= 0,
        "light users": (here > 0) & (here <= low),
        "medium users": (here > low) & (here <= high),
        "heavy users": (here > 0) & (here > high),
    }
    for column in data.schema.slices:
        values = data.columns.series(column, rows)
        for value in values.value_counts().index[:MOST_VALUES]:
            masks[f"{column}={value}"] = (values == value).to_numpy(dtype=bool)
    return masks
