"""The six tables that a shop brings. Only `items` and `exposures` are required."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from expectations.contracts.schema import Column, Table

ITEM_TYPES = ("campaign", "product", "content", "ad")
SCENARIOS = ("campaign", "product", "content", "ad", "search", "customer_service")
EVENT_TYPES = ("view", "click", "cart", "purchase", "search", "share", "favourite", "return")

COLD_START_USER = "__cold_start_user__"
"""Stands for a shopper of whom nothing is known, such as an anonymous reader; no shopper may have this id."""

MONEY, ITEM = "shop currency", "items.item_id"
required = partial(Column, required=True)

USERS = Table(
    name="users",
    grain="one row per shopper",
    key=("user_id",),
    extensible=True,
    columns=(
        required("user_id", "string", "the shopper", personal=True),
        Column("created_at", "timestamp", "when the shopper became known"),
    ),
)

ITEMS = Table(
    name="items",
    grain="one row per thing that can be shown: campaign, product, content, ad",
    key=("item_id",),
    required=True,
    bring="Bring items: item_id, item_type and a text for each thing that was shown or bought.",
    extensible=True,
    columns=(
        required("item_id", "string", "the item"),
        required("item_type", "string", "what kind of thing it is", allowed=ITEM_TYPES),
        Column("text", "string", "the item in natural language"),
        Column("categories", "strings", "path from the broadest to the narrowest category"),
        Column("brand", "string", "who makes it"),
        Column("valid_from", "timestamp", "first moment it may be shown"),
        Column("valid_until", "timestamp", "end of its validity, exclusive"),
        Column("value", "number", "what one outcome is worth to the shop", unit=MONEY),
        Column("image", "string", "path or URL of a picture; kept, but no model reads it"),
    ),
)

EVENTS = Table(
    name="events",
    grain="one row per event of a shopper on an item",
    key=("event_id",),
    event_time="event_timestamp",
    columns=(
        required("event_id", "string", "the event"),
        required("user_id", "string", "who acted", personal=True),
        Column("item_id", "string", "the item acted on, if any", references=ITEM),
        required("event_type", "string", "what the shopper did", allowed=EVENT_TYPES),
        required("event_timestamp", "timestamp", "when"),
        Column("quantity", "number", "how many", minimum=0),
        Column("amount", "number", "how much was paid", unit=MONEY, minimum=0),
        Column(
            "discount", "number", "what the shop had taken off the price for everyone", unit=MONEY, minimum=0
        ),
        Column("coupon_discount", "number", "what coupons took off the price", unit=MONEY, minimum=0),
        Column("dwell_seconds", "number", "time spent", unit="seconds", minimum=0),
        Column("session_id", "string", "session or basket the event belongs to"),
        Column("channel", "string", "web, app, store, …"),
        Column("place", "string", "store or region"),
    ),
)

EXPOSURES = Table(
    name="exposures",
    grain="one row per item shown (or sent) to a shopper at one event_timestamp, or per so many impressions of it",
    key=("exposure_id",),
    event_time="event_timestamp",
    required=True,
    bring=(
        "Bring exposures: what was shown or sent (mails, search results, banners, offers) and whether it was "
        "answered, also where it was not: exposure_id, item_id, scenario, event_timestamp and outcome, or "
        "impressions and clicks by item. Events say what shoppers did, not what they were shown and left."
    ),
    extensible=True,
    columns=(
        required("exposure_id", "string", "the exposure"),
        Column("user_id", "string", "who saw it; null: an anonymous reader", personal=True),
        Column("request_id", "string", "what was shown together has the same one: the query group"),
        required("item_id", "string", "what was shown", references=ITEM),
        required("scenario", "string", "where in the shop it was shown", allowed=SCENARIOS),
        required("event_timestamp", "timestamp", "when it was shown"),
        Column("channel", "string", "web, app, mail, store, …"),
        Column("place", "string", "store or region"),
        Column("device", "string", "phone, desktop, till, …"),
        Column("occasion", "string", "festival, season or situation"),
        Column("query_text", "string", "search query or utterance, if any", personal=True),
        Column(
            "position",
            "integer",
            "place in the query group, from 1; learned from, and 1 wherever items are scored",
            minimum=1,
        ),
        Column(
            "propensity",
            "number",
            "probability with which the logging policy chose this item; kept for off-policy figures, no model reads it",
            minimum=0,
            maximum=1,
        ),
        Column(
            "outcome",
            "number",
            "1 where the outcome is positive (click, purchase, redemption), else 0; or a grade 0, 1, 2, 3, …, the "
            "higher the more relevant; null: not known yet, or an aggregate",
        ),
        Column("impressions", "integer", "an aggregate: how many impressions the row stands for", minimum=1),
        Column("clicks", "integer", "an aggregate: how many of the impressions were positive", minimum=0),
        Column("outcome_value", "number", "what it brought", unit=MONEY),
        Column(
            "outcome_timestamp",
            "timestamp",
            "when the positive outcome happened; null where the outcome is 0",
        ),
    ),
)

FEEDBACK = Table(
    name="feedback",
    grain="one row per feedback of a shopper on an item",
    key=("feedback_id",),
    event_time="event_timestamp",
    columns=(
        required("feedback_id", "string", "the remark"),
        required("user_id", "string", "who said it", personal=True),
        Column("item_id", "string", "what it is about, if an item", references=ITEM),
        Column("text", "string", "the shopper's words; null: a rating alone", personal=True),
        Column("rating", "number", "the shopper's rating, the higher the better; any scale"),
        required("event_timestamp", "timestamp", "when it was said"),
    ),
)

RELATIONS = Table(
    name="relations",
    grain="one row per edge of the knowledge graph",
    key=("source_id", "relation", "target_id"),
    columns=(
        required("source_id", "string", "where the edge starts, an item", references=ITEM),
        required("relation", "string", 'what it says; "covers" leads from a campaign to its products'),
        required("target_id", "string", "where the edge ends"),
    ),
)

CONTRACTS: Mapping[str, Table] = MappingProxyType(
    {table.name: table for table in (USERS, ITEMS, EVENTS, EXPOSURES, FEEDBACK, RELATIONS)}
)
