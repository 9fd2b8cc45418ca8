"""Features put into words: what is said of a value that spoke for an item.

A sentence names its feature and others of the same row in braces: `{user_item_item_sessions:visit}` is
"1 visit" or "7 visits", `{item_value:.2f}` is as usual, `{noun}` is "campaign", "product", …,
`{bought}` is "turned to" where shoppers do more than buy, `{days}` is the history window. Features that
say nearly the same share a theme, and a list of reasons has one of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

USER, ITEM, USER_ITEM, CONTEXT = "user_", "item_", "user_item_", "context_"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """How a feature is said.

    Attributes:
        theme: features of one theme say nearly the same.
        text: for a value above 0.
        zero: for 0; None: nothing can be said.
        unknown: for NaN; None: nothing can be said.
    """

    theme: str
    text: str
    zero: str | None = None
    unknown: str | None = None


_WINDOW = "in the last {days} days"

_COVERED: Mapping[str, str] = MappingProxyType(
    {
        "item": "what this {noun} covers",
        "line": "this {noun}'s kind of products by its brands",
        "topic": "this {noun}'s kind of products",
        "category": "things of this {noun}'s categories",
        "brand": "things of this {noun}'s brands",
        "department": "things of this {noun}'s departments",
    }
)
"""What a candidate covers, at each level of `features.views.shop.LEVELS`."""

_COUNTED: Mapping[str, str] = MappingProxyType(
    {
        "item": "products",
        "line": "product lines",
        "topic": "kinds of products",
        "category": "categories",
        "brand": "brands",
        "department": "departments",
    }
)
"""What a level counts."""

_THEMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("item", "line"), "user items"),
        **dict.fromkeys(("topic", "category"), "user topics"),
        "brand": "user brands",
        "department": "user departments",
    }
)


def _cross_sentences() -> dict[str, Sentence]:
    """How the features of `features.views.user_item` are said."""
    found = {}
    for level, covered in _COVERED.items():
        name = f"user_item_{level}"
        never = f"has not {{bought}} {covered} {_WINDOW}: it may be new to this shopper"
        says = {
            "sessions": f"{{bought}} {covered} {{{name}_sessions:time}} {_WINDOW}",
            "recent": f"{{bought}} {covered} {{{name}_recent:time}} in the last 30 days",
            "coupons": f"used a coupon on {covered} {{{name}_coupons:time}} {_WINDOW}",
            "amount": f"spent {{{name}_amount:.2f}} on {covered} {_WINDOW}",
            "days": f"last {{bought}} {covered} {{{name}_days:day}} ago",
            "first": f"has {{bought}} {covered} for {{{name}_first:day}} or longer",
            "matches": f"{{bought}} {{{name}_matches:kind}} of {covered} {_WINDOW}",
            "affinity": f"often {{bought}} the {_COUNTED[level]} that this {{noun}} has most of {_WINDOW}",
        }
        for measure, words in says.items():
            zero = never if measure == "sessions" else None
            found[f"{name}_{measure}"] = Sentence(theme=_THEMES[level], text=words, zero=zero)
    return found


SENTENCES: Mapping[str, Sentence] = MappingProxyType(
    {
        **_cross_sentences(),
        "user_num_outcomes": Sentence(
            theme="user responses",
            text="answered {user_num_outcomes:n} of {user_num_exposures:n} earlier offers",
            zero="has answered none of {user_num_exposures:n} earlier offers",
        ),
        "user_outcome_rate": Sentence(
            theme="user responses",
            text="answered {user_num_outcomes:n} of {user_num_exposures:n} earlier offers",
        ),
        "user_days_since_outcome": Sentence(
            theme="user responses",
            text="last answered an offer {user_days_since_outcome:day} ago",
            unknown="has not answered an offer before",
        ),
        "user_num_exposures": Sentence(
            theme="user exposures",
            text="was shown {user_num_exposures:offer} before",
            zero="was not shown an offer before",
        ),
        "user_days_since_exposure": Sentence(
            theme="user exposures",
            text="was last shown an offer {user_days_since_exposure:day} ago",
            unknown="was not shown an offer before",
        ),
        "user_num_purchases": Sentence(
            theme="user activity", text=f"bought {{user_num_purchases:time}} {_WINDOW}"
        ),
        "user_sentiment": Sentence(
            theme="user feedback",
            text=f"judged things {{user_sentiment:+.2f}} (-1 to 1) in {{user_num_feedback:remark}} {_WINDOW}",
        ),
        "user_num_feedback": Sentence(
            theme="user feedback", text=f"gave {{user_num_feedback:remark}} {_WINDOW}"
        ),
        "user_amount": Sentence(theme="user activity", text=f"spent {{user_amount:.2f}} {_WINDOW}"),
        "user_amount_30d": Sentence(
            theme="user activity", text="spent {user_amount_30d:.2f} in the last 30 days"
        ),
        "user_amount_per_session": Sentence(
            theme="user activity", text="spends {user_amount_per_session:.2f} a visit"
        ),
        "user_num_sessions": Sentence(
            theme="user activity", text=f"came on {{user_num_sessions:visit}} {_WINDOW}"
        ),
        "user_num_sessions_30d": Sentence(
            theme="user activity", text="came on {user_num_sessions_30d:visit} in the last 30 days"
        ),
        "user_num_events": Sentence(
            theme="user activity", text=f"acted {{user_num_events:time}} in the shop {_WINDOW}"
        ),
        "user_num_events_30d": Sentence(
            theme="user activity", text="acted {user_num_events_30d:time} in the shop in the last 30 days"
        ),
        "user_num_views": Sentence(theme="user activity", text=f"looked {{user_num_views:time}} {_WINDOW}"),
        "user_num_clicks": Sentence(
            theme="user activity", text=f"clicked {{user_num_clicks:time}} {_WINDOW}"
        ),
        "user_click_rate": Sentence(
            theme="user activity", text="clicks on {user_click_rate:.1%} of what is looked at"
        ),
        "user_dwell_seconds": Sentence(
            theme="user activity", text=f"looked for {{user_dwell_seconds:second}} {_WINDOW}"
        ),
        "user_days_since_event": Sentence(
            theme="user activity", text="was last here {user_days_since_event:day} ago"
        ),
        "user_days_since_purchase": Sentence(
            theme="user activity",
            text="last bought something {user_days_since_purchase:day} ago",
        ),
        "user_num_coupons": Sentence(
            theme="user coupons",
            text=f"used a coupon {{user_num_coupons:time}} {_WINDOW}",
            zero=f"has used no coupon {_WINDOW}",
        ),
        "user_num_coupons_30d": Sentence(
            theme="user coupons", text="used a coupon {user_num_coupons_30d:time} in the last 30 days"
        ),
        "user_coupon_amount": Sentence(
            theme="user coupons", text=f"saved {{user_coupon_amount:.2f}} with coupons {_WINDOW}"
        ),
        "user_days_since_coupon": Sentence(
            theme="user coupons", text="last used a coupon {user_days_since_coupon:day} ago"
        ),
        "user_coupon_rate": Sentence(
            theme="user coupons", text="buys {user_coupon_rate:.1%} of all things with a coupon"
        ),
        "user_discount_rate": Sentence(
            theme="user discounts", text="buys {user_discount_rate:.1%} of all things at a discount"
        ),
        "user_known": Sentence(theme="user attributes", text="this shopper's attributes are known"),
        "item_outcome_rate": Sentence(
            theme="item responses",
            text="showings of this {noun} are answered at a rate of {item_outcome_rate:.2%}",
        ),
        "item_num_outcomes": Sentence(
            theme="item responses",
            text="shoppers answered {item_num_outcomes:n} of {item_num_exposures:n} earlier showings "
            "of this {noun}",
        ),
        "item_num_exposures": Sentence(
            theme="item responses",
            text="this {noun} was shown {item_num_exposures:time} before",
            zero="this {noun} is new: it was not shown before",
        ),
        "item_topic_rate": Sentence(
            theme="topic responses",
            text="offers on the kinds of products that this {noun} covers are answered at a rate of "
            "{item_topic_rate:.2%}",
        ),
        "item_popularity": Sentence(
            theme="popularity",
            text=f"shoppers acted {{item_popularity:time}} on what this {{noun}} covers {_WINDOW}",
        ),
        "item_price": Sentence(
            theme="price", text="what this {noun} covers costs {item_price:.2f} on average"
        ),
        "item_coupon_rate": Sentence(
            theme="popularity",
            text="{item_coupon_rate:.1%} of what this {noun} covers is bought with a coupon",
        ),
        "item_discount_rate": Sentence(
            theme="price", text="{item_discount_rate:.1%} of what this {noun} covers is bought at a discount"
        ),
        "item_coupon_amount": Sentence(
            theme="price", text="a coupon takes {item_coupon_amount:.2f} off what this {noun} covers"
        ),
        "item_num_item": Sentence(theme="breadth", text="this {noun} covers {item_num_item:product}"),
        "item_num_line": Sentence(theme="breadth", text="this {noun} covers {item_num_line:line}"),
        "item_num_topic": Sentence(
            theme="breadth", text="this {noun} covers {item_num_topic:kind} of products"
        ),
        "item_num_category": Sentence(
            theme="breadth", text="this {noun} covers {item_num_category:n} categories"
        ),
        "item_num_brand": Sentence(theme="breadth", text="this {noun} covers {item_num_brand:brand}"),
        "item_num_department": Sentence(
            theme="breadth", text="this {noun} covers {item_num_department:department}"
        ),
        "item_top_share": Sentence(
            theme="breadth", text="{item_top_share:.0%} of this {noun} is of one kind of products"
        ),
        "item_department": Sentence(theme="department", text="this {noun} is of {item_department}"),
        "item_sentiment": Sentence(
            theme="item feedback",
            text="{item_num_feedback:remark} judged what this {noun} covers {item_sentiment:+.2f} (-1 to 1)",
        ),
        "item_num_feedback": Sentence(
            theme="item feedback",
            text=f"{{item_num_feedback:remark}} on what this {{noun}} covers {_WINDOW}",
        ),
        "item_value": Sentence(theme="value", text="this {noun} is worth {item_value:.2f}"),
        "item_days_to_end": Sentence(
            theme="validity",
            text="this {noun} ends in {item_days_to_end:day}",
            unknown="this {noun} has no end",
        ),
        "item_days_since_start": Sentence(
            theme="validity",
            text="this {noun} began {item_days_since_start:day} ago",
        ),
        "item_days_valid": Sentence(theme="validity", text="this {noun} lasts {item_days_valid:day}"),
        "context_hour": Sentence(
            theme="clock", text="the hour is {context_hour:n} UTC", zero="it is midnight UTC"
        ),
        "context_weekday": Sentence(
            theme="clock", text="the day is {context_weekday:weekday}", zero="the day is Monday"
        ),
        "context_year_sin": Sentence(
            theme="season", text="the time of year speaks for it", zero="the time of year speaks for it"
        ),
        "context_year_cos": Sentence(
            theme="season", text="the time of year speaks for it", zero="the time of year speaks for it"
        ),
    }
)
"""Every feature that each shop has. A shop's own columns get a sentence with their name and value."""

COLD_START = ("item_popularity", "item_topic_rate", "item_outcome_rate", "item_num_exposures")
"""What can always be said of an item when nothing is known of the shopper."""

OWNERS: Mapping[str, str] = MappingProxyType(
    {USER: "this shopper's", ITEM: "this {noun}'s", CONTEXT: "the", USER_ITEM: "this shopper's"}
)
"""Whose a feature is, by the beginning of its name."""
