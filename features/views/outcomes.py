"""Past outcomes of the user, the item and its topics, strictly before an event_timestamp.

An exposure counts in a lift from the close of its outcome window, positive or not, so that numerator and
denominator mature together: while a campaign's windows are open nobody knows who will still redeem, and those
who did redeem at once are no fair sample. A lift is the outcome rate, smoothed, over what it was overall at that time:

    lift = (outcomes / overall rate + STRENGTH) / (exposures + STRENGTH)

so it is 1 where nothing is known. Of an entity that nothing is known of, a rate would tell the time, and a model would
learn from it what was different then.

Counts do not wait: they say what had been shown, and which timed outcomes had happened. Aggregates count as the
impressions and clicks that they stand for, grades as their gain.
"""

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from expectations.contracts.shop_tables import COLD_START_USER
from features.views.shop import Shop, coverage, item_topics
from features.views.user_behaviour import above_zero, days_between, ratio
from features.views.windows import EVENT_TIMESTAMP, WindowAggregation, aggregate_before

STRENGTH = 20.0
OVERALL_PRIOR, OVERALL_STRENGTH = 0.01, 100.0

_COUNTS = ("exposures", "outcomes", "closed", "closed_outcomes")
_LIFT_AGGREGATIONS = tuple(WindowAggregation(name=name, column=name) for name in _COUNTS)


def user_outcomes(shop: Shop, entity_rows: IbisTable) -> IbisTable:
    """Past outcomes of each user, one row per (user_id, event_timestamp).

    Returns:
        user_id, event_timestamp, user_num_exposures, user_num_outcomes, user_outcome_lift,
        user_days_since_exposure and user_days_since_outcome (null: never). Of the COLD_START_USER, who
        also stands for anonymous readers, nothing is ever known.
    """
    latest = (
        WindowAggregation(name="last_exposure", column="exposures", how="last"),
        WindowAggregation(name="last_outcome", column="outcomes", how="last"),
    )
    totals = aggregate_before(
        _counts_by_time(shop, "user_id").filter(_.user_id != COLD_START_USER),
        entity_rows,
        by="user_id",
        aggregations=_LIFT_AGGREGATIONS + latest,
    )
    return _with_lift(shop, totals).select(
        "user_id",
        EVENT_TIMESTAMP,
        user_num_exposures="exposures",
        user_num_outcomes="outcomes",
        user_outcome_lift="lift",
        user_days_since_exposure=days_between(_.last_exposure, _[EVENT_TIMESTAMP]),
        user_days_since_outcome=days_between(_.last_outcome, _[EVENT_TIMESTAMP]),
    )


def item_outcomes(shop: Shop, entity_rows: IbisTable, history_days: int) -> IbisTable:
    """Past outcomes of items and their topics, one row per (item_id, event_timestamp).

    Returns:
        item_id, event_timestamp, item_num_exposures, item_num_outcomes, item_outcome_lift,
        item_topic_lift (mean lift of the item's topics, by their weight); and of all shoppers'
        events on what the item covers in the last `history_days`: item_popularity, their number;
        item_price, the mean amount; item_coupon_rate and item_discount_rate, the fractions with a coupon and
        with a discount; item_coupon_amount, what coupons took off where there was one.
    """
    entity_rows = entity_rows.select("item_id", **{EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].cast("timestamp")})
    own = _with_lift(
        shop,
        aggregate_before(
            _counts_by_time(shop, "item_id"), entity_rows, by="item_id", aggregations=_LIFT_AGGREGATIONS
        ),
    )
    return (
        own.left_join(_topic_lifts(shop, entity_rows), ["item_id", EVENT_TIMESTAMP])
        .drop("item_id_right", f"{EVENT_TIMESTAMP}_right")
        .left_join(_popularity(shop, entity_rows, history_days), ["item_id", EVENT_TIMESTAMP])
        .select(
            "item_id",
            EVENT_TIMESTAMP,
            item_num_exposures="exposures",
            item_num_outcomes="outcomes",
            item_outcome_lift="lift",
            item_topic_lift=_.topic_lift.coalesce(1.0),
            item_popularity=_.popularity.coalesce(0.0),
            item_price=ratio(_.amount, _.popularity).round(6),
            item_coupon_rate=ratio(_.coupons, _.popularity),
            item_discount_rate=ratio(_.discounts, _.popularity),
            item_coupon_amount=ratio(_.coupon_amount, _.coupons).round(6),
        )
    )


def _counts_by_time(shop: Shop, by: str) -> IbisTable:
    """What was shown, what came of it and which outcome windows closed, per entity and instant.

    Returns:
        Columns `by`, event_timestamp, and _COUNTS: exposures at their time; outcomes at theirs, those without a time
        when their window closes; closed, exposures whose window closes; closed_outcomes, the outcomes
        of these, or later where they happened later.
    """
    shown = shop.exposures.mutate(
        opened=_[EVENT_TIMESTAMP].cast("timestamp"), outcome_weight=_.label * _.weight
    )
    known, positive = shown.filter(_.label.notnull()), shown.filter(_.label > 0)
    happened = ibis.greatest(_.outcome_timestamp.coalesce(_.closes_at), _.opened)
    counts = (
        _counted(shown, by, _.opened, "exposures", _.weight),
        _counted(positive, by, happened, "outcomes", _.outcome_weight),
        _counted(known, by, _.closes_at, "closed", _.weight),
        _counted(positive, by, ibis.greatest(happened, _.closes_at), "closed_outcomes", _.outcome_weight),
    )
    return ibis.union(*counts, distinct=False)


def _counted(rows: IbisTable, by: str, when: ibis.Value, count: str, value: ibis.Value) -> IbisTable:
    """One of _COUNTS summed per entity and instant, the others 0."""
    values = dict.fromkeys(_COUNTS, ibis.literal(0.0)) | {count: value}
    instants = rows.select(by, **{EVENT_TIMESTAMP: when.cast("timestamp")}, **values)
    return instants.group_by([by, EVENT_TIMESTAMP]).aggregate(**{name: _[name].sum() for name in _COUNTS})


def _with_lift(shop: Shop, totals: IbisTable) -> IbisTable:
    """Add the lift, by the overall rate known at each event_timestamp."""
    everyone = ibis.literal("all")
    facts = _counts_by_time(shop, "scenario").mutate(whole=everyone)
    entity_rows = totals.select(EVENT_TIMESTAMP).distinct().mutate(whole=everyone)
    overall = aggregate_before(facts, entity_rows, by="whole", aggregations=_LIFT_AGGREGATIONS).select(
        EVENT_TIMESTAMP,
        overall_rate=(_.closed_outcomes + OVERALL_PRIOR * OVERALL_STRENGTH) / (_.closed + OVERALL_STRENGTH),
    )
    return totals.join(overall, EVENT_TIMESTAMP).mutate(
        lift=(_.closed_outcomes / _.overall_rate + STRENGTH) / (_.closed + STRENGTH)
    )


def _topic_lifts(shop: Shop, entity_rows: IbisTable) -> IbisTable:
    """Mean lift of the topics that an item covers, per (item_id, event_timestamp)."""
    of_item = item_topics(shop).select("item_id", "topic", "weight")
    facts = _counts_by_time(shop, "item_id").join(of_item, "item_id")
    facts = facts.group_by(["topic", EVENT_TIMESTAMP]).aggregate(**{name: _[name].sum() for name in _COUNTS})
    covered_rows = entity_rows.join(of_item, "item_id")
    totals = aggregate_before(
        facts,
        covered_rows.select("topic", EVENT_TIMESTAMP).distinct(),
        by="topic",
        aggregations=_LIFT_AGGREGATIONS,
    )
    rated = _with_lift(shop, totals).select("topic", EVENT_TIMESTAMP, "lift")
    return (
        covered_rows.join(rated, ["topic", EVENT_TIMESTAMP])
        .group_by(["item_id", EVENT_TIMESTAMP])
        .aggregate(topic_lift=(_.lift * _.weight).sum() / _.weight.sum())
    )


def _popularity(shop: Shop, entity_rows: IbisTable, history_days: int) -> IbisTable:
    """Events of all shoppers on what an item covers, per (item_id, event_timestamp)."""
    covered = coverage(shop)
    covered_rows = entity_rows.join(covered, "item_id")
    facts = shop.events.filter(_.item_id.notnull()).select(
        EVENT_TIMESTAMP,
        "amount",
        "coupon_discount",
        covered_id="item_id",
        with_coupon=above_zero(_.coupon_discount),
        with_discount=above_zero(_.discount),
    )
    columns = {
        "popularity": None,
        "amount": "amount",
        "coupons": "with_coupon",
        "discounts": "with_discount",
        "coupon_amount": "coupon_discount",
    }
    counted = aggregate_before(
        facts,
        covered_rows.select("covered_id", EVENT_TIMESTAMP).distinct(),
        by="covered_id",
        aggregations=[
            WindowAggregation(name=n, column=column, days=history_days) for n, column in columns.items()
        ],
    )
    return (
        covered_rows.join(counted, ["covered_id", EVENT_TIMESTAMP])
        .group_by(["item_id", EVENT_TIMESTAMP])
        .aggregate(**{name: _[name].sum() for name in columns})
    )
