"""Request context: features of the clock and of the candidate's validity at the as-of time.

Pure functions over sequences, so that Feast's on-demand view, the offline examples and a request
all compute them with this code.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

DAY_SECONDS = 86400.0

CONTEXT_FEATURES = ("context_utc_hour", "context_utc_weekday", "context_year_sin", "context_year_cos")
"""Hour 0..23 and weekday 0 (Monday)..6 in UTC; the day of the year on a circle, so that the last of
December lies beside the first of January."""

CALENDAR_FEATURES = ("item_days_to_end", "item_days_since_start", "item_days_valid")
"""Days; null where the item has no such date."""


def clock_features(as_of: Sequence[float]) -> dict[str, list[float]]:
    """Hour, weekday and season of as-of times.

    Args:
        as_of: seconds since 1970 in UTC.

    Returns:
        One list per name of CONTEXT_FEATURES.
    """
    found: dict[str, list[float]] = {name: [] for name in CONTEXT_FEATURES}
    for seconds in as_of:
        when = datetime.fromtimestamp(seconds, UTC)
        turn = 2 * math.pi * (when.timetuple().tm_yday - 1) / 365.25
        found["context_utc_hour"].append(float(when.hour))
        found["context_utc_weekday"].append(float(when.weekday()))
        found["context_year_sin"].append(math.sin(turn))
        found["context_year_cos"].append(math.cos(turn))
    return found


def calendar_features(
    as_of: Sequence[float],
    valid_from: Sequence[float | None],
    valid_until: Sequence[float | None],
) -> dict[str, list[float | None]]:
    """Where as-of times lie in their items' validity.

    Args:
        as_of: seconds since 1970 in UTC, one per item.
        valid_from: the items' beginnings in the same unit; None or NaN: no border.
        valid_until: the items' ends in the same way.

    Returns:
        One list per name of CALENDAR_FEATURES, in days.
    """
    found: dict[str, list[float | None]] = {name: [] for name in CALENDAR_FEATURES}
    for seconds, start, end in zip(as_of, valid_from, valid_until, strict=True):
        found["item_days_to_end"].append(_days(seconds, end))
        found["item_days_since_start"].append(_days(start, seconds))
        found["item_days_valid"].append(_days(start, end))
    return found


def _days(start: float | None, end: float | None) -> float | None:
    if start is None or end is None or math.isnan(start) or math.isnan(end):
        return None
    return (end - start) / DAY_SECONDS
