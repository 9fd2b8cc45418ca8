import math
from datetime import UTC, datetime

from features.views.request_context import calendar_features, clock_features


def _seconds(*as_of):
    return datetime(*as_of, tzinfo=UTC).timestamp()


def test_clock_of_a_monday_evening_in_january():
    found = clock_features([_seconds(2024, 1, 1, 18)])
    assert found["context_utc_hour"] == [18.0]
    assert found["context_utc_weekday"] == [0.0]
    assert found["context_year_sin"] == [0.0]
    assert found["context_year_cos"] == [1.0]


def test_the_year_is_a_circle():
    last, first = (clock_features([_seconds(*day)]) for day in ((2024, 12, 31), (2025, 1, 1)))
    assert abs(last["context_year_sin"][0] - first["context_year_sin"][0]) < 0.03


def test_calendar_with_and_without_borders():
    now, start, end = _seconds(2024, 3, 10), _seconds(2024, 3, 8), _seconds(2024, 3, 20, 12)
    found = calendar_features([now, now], [start, None], [end, math.nan])
    assert found["item_days_to_end"].tolist()[0] == 10.5
    assert found["item_days_since_start"].tolist()[0] == 2.0
    assert found["item_days_valid"].tolist()[0] == 12.5
    assert all(math.isnan(values[1]) for values in found.values())
