"""Next interactions of users after an as-of time, with their history before it: learning without labels."""

from datetime import datetime, timedelta

import ibis
import pandas as pd
from ibis import _
from ibis.expr.types import Table as IbisTable

from expectations.contracts.examples import NEXT_WINDOW_DAYS
from features.views.feedback import RatingRange, feedback_texts
from features.views.shop import Shop
from features.views.user_history import (
    fill_lists,
    interactions_before,
    latest_feedback,
    latest_interactions,
    topic_events,
)
from features.views.windows import EVENT_TIMESTAMP


def next_interactions(
    shop: Shop, until: datetime, history_days: int, length: int, rating_range: RatingRange
) -> IbisTable:
    """One row per shopper and every NEXT_WINDOW_DAYS days, where something lies before and after.

    Args:
        shop: the tables.
        until: no window of next interactions ends after it.
        history_days: how far back the history reaches.
        length: topics of a history, the newest.
        rating_range: the worst and the best rating of feedback; None: of all ratings.

    Returns:
        user_id, event_timestamp, the lists of topics and of feedback of
        `features.views.user_history.user_history`, and next_topics (from then on, NEXT_WINDOW_DAYS long).
    """
    events = topic_events(shop)
    start = events[EVENT_TIMESTAMP].min().execute()
    grid_times = [] if pd.isna(start) else grid(start, until)
    entity_rows = events.select("user_id").distinct().cross_join(_as_of_table(grid_times))
    before = latest_interactions(
        interactions_before(events, entity_rows, history_days),
        "topic",
        length,
        lists="topics",
        prefix="topic",
    )
    feedback = latest_feedback(
        interactions_before(feedback_texts(shop, rating_range), entity_rows, history_days)
    )
    after = (
        entity_rows.join(events.select("user_id", "topic", EVENT_TIMESTAMP), "user_id")
        .filter(
            (_[EVENT_TIMESTAMP] >= _.as_of)
            & (_[EVENT_TIMESTAMP] < _.as_of + ibis.interval(days=NEXT_WINDOW_DAYS))
        )
        .select("user_id", "as_of", "topic")
        .distinct()
        .group_by(["user_id", "as_of"])
        .aggregate(next_topics=_.topic.collect(order_by=_.topic))
    )
    return fill_lists(before.join(after, ["user_id", "as_of"]), feedback)


def grid(start: datetime, until: datetime) -> list[datetime]:
    """Every NEXT_WINDOW_DAYS days: the first with a past of that length, the last with a whole window after it."""
    step = timedelta(days=NEXT_WINDOW_DAYS)
    first = datetime(start.year, start.month, start.day) + step
    count = max(0, (until - step - first) // step + 1)
    return [first + number * step for number in range(count)]


def _as_of_table(grid_times: list[datetime]) -> IbisTable:
    frame = pd.DataFrame({"as_of": pd.Series(grid_times, dtype="datetime64[us]")})
    return ibis.memtable(frame).select(as_of=_.as_of.cast("timestamp"))
