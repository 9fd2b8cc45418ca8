"""What exposures brought before a moment: the shopper's, the item's and its topics' past rates.

An outcome counts from the moment it happened, not from the exposure's: on the day a campaign starts
nobody knows yet who will redeem. Rates are smoothed towards what was known overall at that moment:

    rate = (outcomes + STRENGTH · prior) / (exposures + STRENGTH)
"""

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.shop import Shop, coverage, item_topics
from features.views.user_behaviour import above_zero, days_between, ratio
from features.views.windows import EVENT_TIMESTAMP, Measure, totals_before

STRENGTH = 20.0
OVERALL_PRIOR, OVERALL_STRENGTH = 0.01, 100.0

_TALLY = (
    Measure(name="num_exposures", column="exposed"),
    Measure(name="num_outcomes", column="answered"),
)


def user_outcomes(shop: Shop, moments: IbisTable) -> IbisTable:
    """How each shopper answered before, one row per (shopper, moment).

    Returns:
        user_id, event_timestamp, user_num_exposures, user_num_outcomes, user_outcome_rate
        (smoothed), user_days_since_exposure and user_days_since_outcome (null: never).
    """
    latest = (
        Measure(name="last_exposure", column="exposed", how="last"),
        Measure(name="last_outcome", column="answered", how="last"),
    )
    found = totals_before(_tallies(shop, "user_id"), moments, by="user_id", measures=_TALLY + latest)
    return _with_rate(shop, found).select(
        "user_id",
        EVENT_TIMESTAMP,
        user_num_exposures="num_exposures",
        user_num_outcomes="num_outcomes",
        user_outcome_rate="rate",
        user_days_since_exposure=days_between(_.last_exposure, _[EVENT_TIMESTAMP]),
        user_days_since_outcome=days_between(_.last_outcome, _[EVENT_TIMESTAMP]),
    )


def item_outcomes(shop: Shop, moments: IbisTable, history_days: int) -> IbisTable:
    """How items and their topics were answered before, one row per (item, moment).

    Returns:
        item_id, event_timestamp, item_num_exposures, item_num_outcomes, item_outcome_rate,
        item_topic_rate (mean smoothed rate of the item's topics, by their weight); and of all shoppers'
        events on what the item covers in the last `history_days`: item_popularity, their number;
        item_price, the mean amount; item_coupon_rate and item_discount_rate, the shares with a coupon and
        with a discount; item_coupon_amount, what coupons took off where there was one.
    """
    own = _with_rate(shop, totals_before(_tallies(shop, "item_id"), moments, by="item_id", measures=_TALLY))
    return (
        own.left_join(_topic_rates(shop, moments), ["item_id", EVENT_TIMESTAMP])
        .drop("item_id_right", f"{EVENT_TIMESTAMP}_right")
        .left_join(_popularity(shop, moments, history_days), ["item_id", EVENT_TIMESTAMP])
        .select(
            "item_id",
            EVENT_TIMESTAMP,
            item_num_exposures="num_exposures",
            item_num_outcomes="num_outcomes",
            item_outcome_rate="rate",
            item_topic_rate=_.topic_rate.coalesce(_.prior),
            item_popularity=_.popularity.coalesce(0.0),
            item_price=ratio(_.amount, _.popularity).round(6),
            item_coupon_rate=ratio(_.coupons, _.popularity),
            item_discount_rate=ratio(_.discounts, _.popularity),
            item_coupon_amount=ratio(_.coupon_amount, _.coupons).round(6),
        )
    )


def _tallies(shop: Shop, by: str) -> IbisTable:
    """Exposures at their time and outcomes at theirs, counted per entity and instant.

    Returns:
        Columns `by`, event_timestamp, exposed, answered.
    """
    known = shop.exposures.filter(_.outcome.notnull())
    nothing = ibis.literal(0.0)
    shown = known.group_by([by, EVENT_TIMESTAMP]).aggregate(
        exposed=_.count().cast("float64"), answered=nothing
    )
    answered = (
        known.filter(_.outcome)
        .mutate(when=_.outcome_timestamp.coalesce(_[EVENT_TIMESTAMP]))
        .group_by([by, "when"])
        .aggregate(exposed=nothing, answered=_.count().cast("float64"))
        .rename({EVENT_TIMESTAMP: "when"})
    )
    return ibis.union(shown, answered.select(shown.columns), distinct=False)


def _with_rate(shop: Shop, found: IbisTable) -> IbisTable:
    """Add the overall prior known at each moment, and the smoothed rate."""
    everyone = ibis.literal("all")
    facts = _tallies(shop, "scenario").mutate(whole=everyone)
    moments = found.select(EVENT_TIMESTAMP).distinct().mutate(whole=everyone)
    overall = totals_before(facts, moments, by="whole", measures=_TALLY).select(
        EVENT_TIMESTAMP,
        prior=(_.num_outcomes + OVERALL_PRIOR * OVERALL_STRENGTH) / (_.num_exposures + OVERALL_STRENGTH),
    )
    return found.join(overall, EVENT_TIMESTAMP).mutate(
        rate=(_.num_outcomes + STRENGTH * _.prior) / (_.num_exposures + STRENGTH)
    )


def _topic_rates(shop: Shop, moments: IbisTable) -> IbisTable:
    """Mean smoothed outcome rate of the topics that an item covers, per (item, moment)."""
    of_item = item_topics(shop).select("item_id", "topic", "weight")
    facts = _tallies(shop, "item_id").join(of_item, "item_id")
    facts = facts.group_by(["topic", EVENT_TIMESTAMP]).aggregate(
        exposed=_.exposed.sum(), answered=_.answered.sum()
    )
    asked = moments.select("item_id", **{EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].cast("timestamp")}).join(
        of_item, "item_id"
    )
    totals = totals_before(
        facts, asked.select("topic", EVENT_TIMESTAMP).distinct(), by="topic", measures=_TALLY
    )
    rated = _with_rate(shop, totals).select("topic", EVENT_TIMESTAMP, "rate")
    return (
        asked.join(rated, ["topic", EVENT_TIMESTAMP])
        .group_by(["item_id", EVENT_TIMESTAMP])
        .aggregate(topic_rate=(_.rate * _.weight).sum() / _.weight.sum())
    )


def _popularity(shop: Shop, moments: IbisTable, history_days: int) -> IbisTable:
    """Events of all shoppers on what an item covers, per (item, moment)."""
    covered = coverage(shop)
    asked = moments.select("item_id", **{EVENT_TIMESTAMP: _[EVENT_TIMESTAMP].cast("timestamp")}).join(
        covered, "item_id"
    )
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
    counted = totals_before(
        facts,
        asked.select("covered_id", EVENT_TIMESTAMP).distinct(),
        by="covered_id",
        measures=[Measure(name=n, column=column, days=history_days) for n, column in columns.items()],
    )
    return (
        asked.join(counted, ["covered_id", EVENT_TIMESTAMP])
        .group_by(["item_id", EVENT_TIMESTAMP])
        .aggregate(**{name: _[name].sum() for name in columns})
    )
