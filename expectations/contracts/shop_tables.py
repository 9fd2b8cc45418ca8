"""The six tables that a shop brings. Only `items` and `exposures` are required."""

from collections.abc import Mapping
from types import MappingProxyType

from expectations.contracts.schema import Column, Table

ITEM_TYPES = ("campaign", "product", "content", "ad")
SCENARIOS = ("campaign", "product", "content", "ad", "search", "customer_service")
EVENT_TYPES = ("view", "click", "cart", "purchase", "search", "share", "favourite", "return")

USERS = Table(
    name="users",
    grain="one row per shopper",
    key=("user_id",),
    extensible=True,
    columns=(
        Column(name="user_id", type="string", required=True, description="the shopper"),
        Column(name="created_at", type="timestamp", description="when the shopper became known"),
    ),
)

ITEMS = Table(
    name="items",
    grain="one row per thing that can be shown: campaign, product, content, ad",
    key=("item_id",),
    required=True,
    extensible=True,
    columns=(
        Column(name="item_id", type="string", required=True, description="the item"),
        Column(
            name="item_type",
            type="string",
            required=True,
            allowed=ITEM_TYPES,
            description="what kind of thing it is",
        ),
        Column(name="text", type="string", description="the item in natural language"),
        Column(
            name="categories",
            type="strings",
            description="path from the broadest to the narrowest category",
        ),
        Column(name="brand", type="string", description="who makes it"),
        Column(name="valid_from", type="timestamp", description="first moment it may be shown"),
        Column(name="valid_until", type="timestamp", description="end of its validity, exclusive"),
        Column(
            name="value",
            type="number",
            unit="shop currency",
            description="what one outcome is worth to the shop",
        ),
        Column(name="image", type="string", description="path or URL of a picture"),
    ),
)

EVENTS = Table(
    name="events",
    grain="one row per event of a shopper on an item",
    key=("event_id",),
    event_time="event_timestamp",
    columns=(
        Column(name="event_id", type="string", required=True, description="the event"),
        Column(name="user_id", type="string", required=True, description="who acted"),
        Column(
            name="item_id",
            type="string",
            references="items.item_id",
            description="the item acted on, if any",
        ),
        Column(
            name="event_type",
            type="string",
            required=True,
            allowed=EVENT_TYPES,
            description="what the shopper did",
        ),
        Column(name="event_timestamp", type="timestamp", required=True, description="when"),
        Column(name="quantity", type="number", minimum=0, description="how many"),
        Column(
            name="amount", type="number", unit="shop currency", minimum=0, description="how much was paid"
        ),
        Column(
            name="discount",
            type="number",
            unit="shop currency",
            minimum=0,
            description="what the shop had taken off the price for everyone",
        ),
        Column(
            name="coupon_discount",
            type="number",
            unit="shop currency",
            minimum=0,
            description="what coupons took off the price",
        ),
        Column(name="dwell_seconds", type="number", unit="seconds", minimum=0, description="time spent"),
        Column(name="session_id", type="string", description="session or basket the event belongs to"),
        Column(name="channel", type="string", description="web, app, store, …"),
        Column(name="place", type="string", description="store or region"),
    ),
)

EXPOSURES = Table(
    name="exposures",
    grain="one row per item shown (or sent) to a shopper at one event_timestamp",
    key=("exposure_id",),
    event_time="event_timestamp",
    required=True,
    extensible=True,
    columns=(
        Column(name="exposure_id", type="string", required=True, description="the exposure"),
        Column(name="user_id", type="string", required=True, description="who saw it"),
        Column(
            name="item_id",
            type="string",
            required=True,
            references="items.item_id",
            description="what was shown",
        ),
        Column(
            name="scenario",
            type="string",
            required=True,
            allowed=SCENARIOS,
            description="where in the shop it was shown",
        ),
        Column(name="event_timestamp", type="timestamp", required=True, description="when it was shown"),
        Column(name="channel", type="string", description="web, app, mail, store, …"),
        Column(name="place", type="string", description="store or region"),
        Column(name="device", type="string", description="phone, desktop, till, …"),
        Column(name="occasion", type="string", description="festival, season or situation"),
        Column(name="query_text", type="string", description="search query or utterance, if any"),
        Column(name="position", type="integer", minimum=1, description="place in the query group, from 1"),
        Column(
            name="propensity",
            type="number",
            minimum=0,
            maximum=1,
            description="probability with which the logging policy chose this item",
        ),
        Column(
            name="outcome",
            type="boolean",
            description="whether the outcome is positive (click, purchase, redemption); null: not known yet",
        ),
        Column(name="outcome_value", type="number", unit="shop currency", description="what it brought"),
        Column(
            name="outcome_timestamp",
            type="timestamp",
            description="when the positive outcome happened; null where the outcome is false",
        ),
    ),
)

FEEDBACK = Table(
    name="feedback",
    grain="one row per feedback of a shopper on an item",
    key=("feedback_id",),
    event_time="event_timestamp",
    columns=(
        Column(name="feedback_id", type="string", required=True, description="the remark"),
        Column(name="user_id", type="string", required=True, description="who said it"),
        Column(
            name="item_id",
            type="string",
            references="items.item_id",
            description="what it is about, if an item",
        ),
        Column(name="text", type="string", description="the shopper's words; null: a rating alone"),
        Column(
            name="rating", type="number", description="the shopper's rating, the higher the better; any scale"
        ),
        Column(name="event_timestamp", type="timestamp", required=True, description="when it was said"),
    ),
)

RELATIONS = Table(
    name="relations",
    grain="one row per edge of the knowledge graph",
    key=("source_id", "relation", "target_id"),
    columns=(
        Column(
            name="source_id",
            type="string",
            required=True,
            references="items.item_id",
            description="where the edge starts, an item",
        ),
        Column(
            name="relation",
            type="string",
            required=True,
            description='what it says; "covers" leads from a campaign to its products',
        ),
        Column(name="target_id", type="string", required=True, description="where the edge ends"),
    ),
)

CONTRACTS: Mapping[str, Table] = MappingProxyType(
    {table.name: table for table in (USERS, ITEMS, EVENTS, EXPOSURES, FEEDBACK, RELATIONS)}
)
