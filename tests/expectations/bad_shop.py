"""A shop that breaks every rule on rows, and how often, counted by hand."""

from datetime import datetime, timedelta

from expectations.contracts.shop_tables import COLD_START_USER
from tests.expectations.shops import NOW, START, Rows, good_shop


def bad_shop() -> Rows:
    """Every rule on rows is broken by rows that break (nearly) nothing else."""
    rows = good_shop()
    user, item = rows["users"][0], rows["items"][0]
    event, exposure = rows["events"][0], rows["exposures"][1]
    feedback_text, relation = rows["feedback"][0], rows["relations"][0]
    reserved = {**user, "user_id": COLD_START_USER}
    rows["users"] += [{**user, "user_id": None}, {**user, "user_id": " "}, user, reserved]
    rows["items"] += [
        {**item, "item_id": None},
        {**item, "item_id": ""},
        {**item, "item_id": "i0"},
        {**item, "item_id": "a", "item_type": None},
        {**item, "item_id": "b", "item_type": "gift"},
        {**item, "item_id": "c", "valid_until": datetime(2025, 1, 1)},
        {**item, "item_id": "d", "value": float("inf")},
        {**item, "item_id": "e", "text": None},
        {**item, "item_id": "f", "text": "  "},
        {**item, "item_id": "g", "text": "ab"},
        {**item, "item_id": "h", "discount": None},
        {**item, "item_id": "k", "discount": float("nan")},
    ]
    rows["events"] += [
        {**event, "event_id": None},
        {**event, "event_id": ""},
        event,
        event,
        {**event, "event_id": "a", "user_id": None},
        {**event, "event_id": "b", "event_type": None},
        {**event, "event_id": "c", "event_type": "stare"},
        {**event, "event_id": "d", "event_timestamp": None},
        {**event, "event_id": "e", "event_timestamp": NOW + timedelta(seconds=1)},
        {**event, "event_id": "f", "item_id": "nowhere"},
        {**event, "event_id": "g", "quantity": -1.0},
        {**event, "event_id": "h", "amount": -0.5},
        {**event, "event_id": "h2", "discount": -0.5},
        {**event, "event_id": "h3", "coupon_discount": -0.5},
        {**event, "event_id": "i", "dwell_seconds": -3.0},
        {**event, "event_id": "j", "dwell_seconds": float("inf")},
        {**event, "event_id": "k", "amount": 1e9},
        {**event, "event_id": "l", "amount": float("nan")},
        {**event, "event_id": "m", "user_id": "stranger"},
        {**event, "event_id": "n", "user_id": COLD_START_USER},
    ]
    rows["exposures"] += [
        {**exposure, "exposure_id": None},
        {**exposure, "exposure_id": ""},
        exposure,
        {**exposure, "exposure_id": "a", "user_id": None},  # an anonymous reader
        {**exposure, "exposure_id": "b", "item_id": None},
        {**exposure, "exposure_id": "c", "scenario": None},
        {**exposure, "exposure_id": "d", "scenario": "dream"},
        {**exposure, "exposure_id": "e", "event_timestamp": None},
        {**exposure, "exposure_id": "f", "event_timestamp": NOW + timedelta(days=1)},
        {**exposure, "exposure_id": "g", "item_id": "nowhere"},
        {**exposure, "exposure_id": "h", "item_id": "c"},  # an item in quarantine
        {**exposure, "exposure_id": "i", "position": 0},
        {**exposure, "exposure_id": "j", "propensity": 1.5},
        {**exposure, "exposure_id": "k", "propensity": -0.5},
        {**exposure, "exposure_id": "l", "outcome_value": float("-inf")},
        {**exposure, "exposure_id": "m", "outcome": 1.0, "outcome_timestamp": START - timedelta(days=1)},
        {**exposure, "exposure_id": "n", "outcome": 0.0, "outcome_timestamp": START + timedelta(days=9)},
        {**exposure, "exposure_id": "o", "outcome": None, "outcome_timestamp": START + timedelta(days=9)},
        {**exposure, "exposure_id": "p", "outcome": 1.0, "outcome_timestamp": NOW + timedelta(days=9)},
        {**exposure, "exposure_id": "q", "outcome": 1.0, "outcome_timestamp": None},
        {**exposure, "exposure_id": "r", "outcome": None},
        {**exposure, "exposure_id": "s", "user_id": "stranger"},
        {**exposure, "exposure_id": "s2", "user_id": COLD_START_USER},
        {**exposure, "exposure_id": "t", "event_timestamp": datetime(2025, 12, 31)},
        {**exposure, "exposure_id": "u", "item_id": "nowhere", "position": -1},
        {**exposure, "exposure_id": "v", "outcome": 0.5},
        {**exposure, "exposure_id": "w", "outcome": -1.0},
        {**exposure, "exposure_id": "x", "outcome": 11.0},
        {**exposure, "exposure_id": "y", "outcome": 0.0, "impressions": 9, "clicks": 1},
        {**exposure, "exposure_id": "z", "outcome": None, "impressions": 9, "clicks": 10},
        {**exposure, "exposure_id": "za", "outcome": None, "impressions": 9},
        {**exposure, "exposure_id": "zb", "outcome": None, "clicks": 1},
        {**exposure, "exposure_id": "zc", "outcome": None, "impressions": 0, "clicks": 0},
        {**exposure, "exposure_id": "zd", "outcome": None, "impressions": 9, "clicks": -1},
        {**exposure, "exposure_id": "ze", "outcome": None, "impressions": 9, "clicks": 9},  # sound
    ]
    rows["feedback"] += [
        {**feedback_text, "feedback_id": None},
        {**feedback_text, "feedback_id": ""},
        feedback_text,
        {**feedback_text, "feedback_id": "a", "user_id": None},
        {**feedback_text, "feedback_id": "b", "item_id": "nowhere"},
        {**feedback_text, "feedback_id": "d", "text": "x"},
        {**feedback_text, "feedback_id": "e", "event_timestamp": None},
        {**feedback_text, "feedback_id": "f", "event_timestamp": NOW + timedelta(days=1)},
        {**feedback_text, "feedback_id": "g", "rating": float("inf")},
        {**feedback_text, "feedback_id": "h", "user_id": "stranger"},
        {**feedback_text, "feedback_id": "i", "user_id": COLD_START_USER},
    ]
    rows["relations"] += [
        {**relation, "source_id": None},
        {**relation, "relation": None},
        {**relation, "target_id": None},
        {**relation, "target_id": ""},
        {**relation, "source_id": "nowhere"},
        relation,
    ]
    return rows


_ONCE = {
    "users": "user_id_given user_id_not_reserved required_not_blank",
    "items": (
        "item_id_given required_not_blank item_type_given item_type_allowed validity_in_order "
        "numbers_finite text_length"
    ),
    "events": (
        "event_id_given required_not_blank user_id_given user_id_not_reserved event_type_given event_type_allowed "
        "event_timestamp_given event_timestamp_not_in_future item_id_known quantity_in_bounds "
        "amount_in_bounds discount_in_bounds coupon_discount_in_bounds dwell_seconds_in_bounds "
        "numbers_finite amount_not_outlier"
    ),
    "exposures": (
        "exposure_id_given required_not_blank user_id_not_reserved item_id_given scenario_given "
        "scenario_allowed event_timestamp_given event_timestamp_not_in_future numbers_finite "
        "outcome_not_before_exposure outcome_timestamp_not_in_future "
        "aggregate_without_outcome clicks_within_impressions impressions_in_bounds clicks_in_bounds "
        "within_item_validity"
    ),
    "feedback": (
        "feedback_id_given required_not_blank user_id_given user_id_not_reserved item_id_known text_length "
        "event_timestamp_given event_timestamp_not_in_future numbers_finite"
    ),
    "relations": "source_id_given relation_given target_id_given required_not_blank source_id_known",
}
NUM_FAILED = {f"{table}.{rule}": 1 for table, rules in _ONCE.items() for rule in rules.split()} | {
    "users.key_unique": 2,
    "events.user_id_known": 2,
    "exposures.user_id_known": 2,
    "feedback.user_id_known": 2,
    "items.key_unique": 2,
    "items.text_present": 2,
    "items.discount_mostly_given": 2,
    "events.key_unique": 3,
    "exposures.key_unique": 2,
    "exposures.item_id_known": 3,
    "exposures.position_in_bounds": 2,
    "exposures.propensity_in_bounds": 2,
    "exposures.outcome_time_only_if_positive": 2,
    "exposures.outcome_known": 3,
    "exposures.outcome_is_grade": 3,
    "exposures.impressions_with_clicks": 2,
    "exposures.positive_outcome_has_time": 3,
    "feedback.key_unique": 2,
    "relations.key_unique": 2,
}
"""What the bad shop breaks, by hand: rule -> rows."""
