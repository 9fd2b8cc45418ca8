"""Request context: features of the clock and of the candidate's validity at the as-of time.

Pure functions over sequences, so that Feast's on-demand view, the offline examples and a request
all compute them with this code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

DAY_SECONDS = 86400.0

CONTEXT_FEATURES = ("context_utc_hour", "context_utc_weekday", "context_year_sin", "context_year_cos")
"""Hour 0..23 and weekday 0 (Monday)..6 in UTC; the day of the year on a circle, so that the last of
December lies beside the first of January."""

CALENDAR_FEATURES = ("item_days_to_end", "item_days_since_start", "item_days_valid")
"""Days; NaN where the item has no such date."""

Seconds = Sequence[float] | np.ndarray


def clock_features(as_of: Seconds) -> dict[str, np.ndarray]:
    """Hour, weekday and season of as-of times.

    Args:
        as_of: (n,) seconds since 1970 in UTC.

    Returns:
        (n,) float64 per name of CONTEXT_FEATURES.
    """
    seconds = np.floor(np.asarray(as_of, np.float64)).astype(np.int64)
    days = seconds // 86400
    dates = days.astype("datetime64[D]")
    turn = 2 * np.pi * (dates - dates.astype("datetime64[Y]")).astype(np.int64) / 365.25
    values: tuple[Any, ...] = (seconds % 86400 // 3600, (days + 3) % 7, np.sin(turn), np.cos(turn))
    return {name: value.astype(np.float64) for name, value in zip(CONTEXT_FEATURES, values, strict=True)}


def calendar_features(
    as_of: Seconds,
    valid_from: Sequence[float | None] | np.ndarray,
    valid_until: Sequence[float | None] | np.ndarray,
) -> dict[str, np.ndarray]:
    """Where as-of times lie in their items' validity.

    Args:
        as_of: (n,) seconds since 1970 in UTC, one per item.
        valid_from: (n,) the items' beginnings in the same unit; None or NaN: no border.
        valid_until: (n,) the items' ends in the same way.

    Returns:
        (n,) float64 days per name of CALENDAR_FEATURES; NaN where there is no such border.
    """
    now, start, end = (np.asarray(values, np.float64) for values in (as_of, valid_from, valid_until))
    days = (end - now, now - start, end - start)
    return {name: value / DAY_SECONDS for name, value in zip(CALENDAR_FEATURES, days, strict=True)}
