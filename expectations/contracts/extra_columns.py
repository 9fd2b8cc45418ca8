"""Which extra columns a source may declare: those that can be read, trained on and served."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from expectations.contracts.schema import EXTRA_TYPES, Table
from expectations.errors import SettingError

_OUTCOMES = (
    "num_exposures num_outcomes num_feedback outcome_lift sentiment coupon_rate coupon_amount discount_rate"
)

RESERVED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # the time of a request's context; landed files lie in folders month=…
        "exposures": frozenset(("time", "month", "utc_hour", "utc_weekday", "year_sin", "year_cos")),
        # features of an item are called item_…, such as item_price
        "items": frozenset(
            f"id type price popularity department top_topic_fraction topic_lift {_OUTCOMES} days_to_end "
            "days_since_start days_valid amounts coupons days firsts recents sessions num_item num_line "
            "num_topic num_category num_brand num_department".split()
        ),
        "users": frozenset(
            f"id known text history amount amount_30d amount_per_session click_rate dwell_seconds {_OUTCOMES} "
            "num_clicks num_coupons num_events num_purchases num_sessions num_views num_coupons_30d num_events_30d "
            "num_sessions_30d days_since_coupon days_since_event days_since_exposure days_since_outcome "
            "days_since_purchase".split()
        ),
    }
)
"""Names that an extra column may not have, since a feature or a setting of ours has them."""


def check_extras(where: str, contract: Table, extra: Mapping[str, Any]) -> None:
    """Check the extra columns of one table; `where` names file and section in messages.

    Raises:
        SettingError: the table can have none, a kind is unknown, or a name cannot be used.
    """
    if extra and not contract.extensible:
        raise SettingError(f"{where} cannot have extra columns; users, items and exposures can")
    own = {column.name for column in contract.columns}
    seen: set[str] = set()
    for column, kind in extra.items():
        if not isinstance(kind, str) or kind not in EXTRA_TYPES:
            raise SettingError(f"{where} extra {column} is {kind!r}; use {', '.join(EXTRA_TYPES)}")
        if not column.isidentifier() or column.startswith("_"):
            raise SettingError(f"{where} extra column {column!r} must be a plain identifier")
        folded = column.casefold()
        if folded in own:
            raise SettingError(
                f"{where} extra names {column}, which {contract.name} have by themselves; leave it out of extra"
            )
        if folded in seen or folded in RESERVED[contract.name]:
            taken = "twice" if folded in seen else "which is a name of this system"
            raise SettingError(
                f"{where} extra names {column}, {taken}; call it otherwise: "
                f'columns = {{ shop_{column} = "{column}" }} and extra = {{ shop_{column} = "{kind}" }}'
            )
        seen.add(folded)
