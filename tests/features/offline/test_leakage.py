"""Nothing that happens at or after a time changes a feature as of that time."""

import numpy as np
import pandas as pd
import pytest

from features.offline.engine import open_engine
from features.offline.feature_rows import feature_tables
from features.views.shop import read_shop
from tests.features import small_shop

VIEWS = ("user_behaviour", "user_history", "user_outcomes", "item_outcomes")
TIMESTAMPS = [small_shop.START + pd.Timedelta(days=days) for days in (20, 60, 100)]


def _features(folder, tables):
    connection = open_engine()
    source = small_shop.SOURCE
    shop = read_shop(connection, small_shop.land(folder, tables), source)
    computed = feature_tables(source, shop, pd.Timestamp("2025-01-01").to_pydatetime())
    return {name: connection.to_pandas(computed[name]) for name in VIEWS}


def _at(frame, as_of):
    key = "user_id" if "user_id" in frame else "item_id"
    rows = frame[frame["event_timestamp"] == as_of].sort_values(key).reset_index(drop=True)
    return rows.map(lambda value: list(value) if isinstance(value, np.ndarray) else value)


def _future_changed(tables, as_of):
    """Everything from the time on, and what is open then, is shifted, doubled or turned into its opposite."""
    changed = {name: frame.copy() for name, frame in tables.items()}
    events, exposures = changed["events"], changed["exposures"]
    later = events["event_timestamp"] >= as_of
    events.loc[later, "event_timestamp"] += pd.Timedelta(hours=5)
    events.loc[later, "amount"] *= 7
    events.loc[later, "item_id"] = "p3"
    more = events[later].assign(event_id=lambda frame: "again " + frame["event_id"])
    changed["events"] = pd.concat([events, more])
    positive = (exposures["outcome"] > 0) & (exposures["outcome_timestamp"] >= as_of)
    exposures.loc[positive, "outcome_timestamp"] += pd.Timedelta(days=2)
    closes = exposures["event_timestamp"] + pd.Timedelta(days=small_shop.SOURCE.outcome_window["campaign"])
    positive = (exposures["outcome"] > 0) & (exposures["outcome_timestamp"] < as_of)
    flipped = (closes >= as_of) & ~positive
    exposures.loc[flipped, "outcome"] = 1.0 - exposures.loc[flipped, "outcome"]
    exposures.loc[flipped & (exposures["outcome"] == 0), "outcome_timestamp"] = pd.NaT
    feedback = changed["feedback"]
    said_later = feedback["event_timestamp"] >= as_of
    feedback.loc[said_later, "text"] = "something else"
    feedback.loc[said_later, "rating"] = 6 - feedback.loc[said_later, "rating"].astype(float)
    again = feedback[said_later].assign(feedback_id=lambda frame: "again " + frame["feedback_id"])
    changed["feedback"] = pd.concat([feedback, again])
    return changed


@pytest.mark.parametrize("as_of", TIMESTAMPS)
def test_no_feature_knows_the_future(tmp_path, as_of):
    tables = small_shop.frames()
    features = _features(tmp_path / "as_it_was", tables)
    shifted = _features(tmp_path / "shifted", _future_changed(tables, as_of))
    for name in VIEWS:
        before = _at(features[name], as_of)
        assert len(before) > 0
        pd.testing.assert_frame_equal(before, _at(shifted[name], as_of), obj=name)


def test_the_past_does_change_features(tmp_path):
    tables = small_shop.frames()
    features = _features(tmp_path / "as_it_was", tables)
    tables["events"]["amount"] *= 2
    tables["feedback"]["rating"] = 5.0
    doubled = _features(tmp_path / "doubled", tables)
    for name, column in (
        ("user_behaviour", "user_amount"),
        ("user_behaviour", "user_sentiment"),
        ("user_history", "topic_amounts"),
        ("user_history", "feedback_sentiments"),
    ):
        assert not _at(features[name], TIMESTAMPS[-1])[column].equals(
            _at(doubled[name], TIMESTAMPS[-1])[column]
        )
