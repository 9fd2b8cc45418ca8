"""Feedback: what users said about items in words, and their sentiment.

Sentiment lies between -1 (the worst rating) and 1 (the best); 0 is in between, or unknown where
there is no rating. The range of ratings is the source's declared one; without a declaration it is that of
all its ratings, which is a property of the scale and no secret of the future.
"""

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.shop import Shop, coverage, topics
from features.views.windows import EVENT_TIMESTAMP, WindowAggregation, aggregate_before

RatingRange = tuple[float, float] | None


def feedback_texts(shop: Shop, rating_range: RatingRange) -> IbisTable:
    """One row per feedback that says anything: a text, a rating, or what it is about.

    Args:
        shop: the tables.
        rating_range: the worst and the best rating; None: of all ratings.

    Returns:
        user_id, item_id, event_timestamp; feedback_text, what it is about and the user's words, such as
        "snacks, chips: far too salty"; sentiment, null where there is no rating.
    """
    rating = _.rating.cast("float64")
    if rating_range is None:
        low, high = shop.feedback.rating.min().as_scalar(), shop.feedback.rating.max().as_scalar()
    else:
        low, high = (ibis.literal(float(end)) for end in rating_range)
    sentiment = (2.0 * (rating - low) / (high - low).cast("float64").nullif(0.0) - 1.0).clip(-1.0, 1.0)
    about = shop.feedback.left_join(topics(shop), "item_id").select(
        "user_id",
        "item_id",
        EVENT_TIMESTAMP,
        topic=_.topic.fill_null(""),
        text=_.text.fill_null("").strip(),
        sentiment=sentiment,
    )
    gap = ibis.ifelse((_.topic == "") | (_.text == ""), "", ": ")
    feedback = about.mutate(feedback_text=_.topic.concat(gap, _.text)).drop("topic", "text")
    return feedback.filter(_.feedback_text != "")


def feedback_summary(
    shop: Shop, entity_rows: IbisTable, by: str, days: int, rating_range: RatingRange
) -> IbisTable:
    """Number and mean sentiment of feedback strictly before each event_timestamp.

    Args:
        shop: the tables.
        entity_rows: columns `by`, event_timestamp.
        by: "user_id": by the shopper; "item_id": on what the candidate covers.
        days: length of the window.
        rating_range: as in `feedback_texts`.

    Returns:
        `by`, event_timestamp, user_num_feedback and user_sentiment (or item_…), float64; the sentiment is the
        mean over rated feedback, as if one more had been neutral.
    """
    feedback = feedback_texts(shop, rating_range)
    if by == "item_id":
        covered = coverage(shop).rename(candidate_id="item_id")
        feedback = feedback.join(covered, feedback.item_id == covered.covered_id).drop(
            "item_id", "covered_id"
        )
        feedback = feedback.rename(item_id="candidate_id")
    side = by.removesuffix("_id")
    totals = aggregate_before(
        feedback.mutate(is_rated=_.sentiment.notnull().cast("float64")),
        entity_rows,
        by=by,
        aggregations=(
            WindowAggregation(name=f"{side}_num_feedback", days=days),
            WindowAggregation(name="sentiment", column="sentiment", days=days),
            WindowAggregation(name="rated", column="is_rated", days=days),
        ),
    )
    mean = _.sentiment / (_.rated + 1.0)
    return totals.mutate(**{f"{side}_sentiment": mean.round(6)}).drop("sentiment", "rated")
