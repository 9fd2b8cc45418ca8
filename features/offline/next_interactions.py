"""What shoppers turned to after a moment, beside what they did before it: learning without labels."""

from datetime import datetime, timedelta

import ibis
import pandas as pd
from ibis import _
from ibis.expr.types import Table as IbisTable

from expectations.contracts.examples import NEXT_WINDOW_DAYS
from features.views.feedback import RatingRange, feedback_texts
from features.views.shop import Shop
from features.views.user_behaviour import fill_lists, newest, newest_feedback, seen_before, topical_acts
from features.views.windows import EVENT_TIMESTAMP


def next_interactions(
    shop: Shop, until: datetime, history_days: int, length: int, rating_range: RatingRange
) -> IbisTable:
    """One row per shopper and every NEXT_WINDOW_DAYS days, where something lies before and after.

    Args:
        shop: the tables.
        until: no future ends after it.
        history_days: how far back the history reaches.
        length: topics of a history, the newest.
        rating_range: the worst and the best rating of feedback; None: of all ratings.

    Returns:
        user_id, event_timestamp (the moment), the lists of topics and of remarks of
        `features.views.user_behaviour.user_history`, and next_topics (from the moment on, NEXT_WINDOW_DAYS long).
    """
    acts = topical_acts(shop)
    start = acts[EVENT_TIMESTAMP].min().execute()
    moments = [] if pd.isna(start) else grid(start, until)
    asked = acts.select("user_id").distinct().cross_join(_moments(moments))
    before = newest(seen_before(acts, asked, history_days), "topic", length, lists="topics", prefix="topic")
    said = newest_feedback(seen_before(feedback_texts(shop, rating_range), asked, history_days))
    after = (
        asked.join(acts.select("user_id", "topic", EVENT_TIMESTAMP), "user_id")
        .filter(
            (_[EVENT_TIMESTAMP] >= _.moment)
            & (_[EVENT_TIMESTAMP] < _.moment + ibis.interval(days=NEXT_WINDOW_DAYS))
        )
        .select("user_id", "moment", "topic")
        .distinct()
        .group_by(["user_id", "moment"])
        .aggregate(next_topics=_.topic.collect(order_by=_.topic))
    )
    return fill_lists(before.join(after, ["user_id", "moment"]), said)


def grid(start: datetime, until: datetime) -> list[datetime]:
    """Every NEXT_WINDOW_DAYS days: the first with a past of that length, the last with a whole future."""
    step = timedelta(days=NEXT_WINDOW_DAYS)
    first = datetime(start.year, start.month, start.day) + step
    count = max(0, (until - step - first) // step + 1)
    return [first + number * step for number in range(count)]


def _moments(moments: list[datetime]) -> IbisTable:
    frame = pd.DataFrame({"moment": pd.Series(moments, dtype="datetime64[us]")})
    return ibis.memtable(frame).select(moment=_.moment.cast("timestamp"))
