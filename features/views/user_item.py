"""What a shopper did before with what a candidate covers: its items, lines, topics, …, departments.

The candidate's side changes with the catalogue and the shopper's with every event, so these features
belong to neither entity: they are computed from the shopper's retrieved history when the two meet,
by the same expressions for training examples and for a request.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.views.shop import LEVELS

How = Literal["sum", "count", "min", "max"]


@dataclass(frozen=True, kw_only=True)
class KeyAggregation:
    """One number out of the keys of a level that a candidate and a history share.

    Attributes:
        of: column of `history_keys`.
        how: how its values become one.
        weighted: times the key's share of the candidate.
        digits: rounded to so many; None: not at all.
    """

    of: str
    how: How = "sum"
    weighted: bool = False
    digits: int | None = None

    @property
    def default(self) -> float:
        """Its value where no key is shared; NaN: none."""
        return float("nan") if self.how in ("min", "max") else 0.0

    def over_keys(self) -> ibis.Value:
        """The measure as an aggregate of rows of shared keys."""
        value = _[self.of] * _.weight if self.weighted else _[self.of]
        found = getattr(value, self.how)().cast("float64")
        return found if self.digits is None else found.round(self.digits)


AGGREGATIONS: Mapping[str, KeyAggregation] = MappingProxyType(
    {
        "sessions": KeyAggregation(of="sessions"),
        "recent": KeyAggregation(of="recents"),
        "coupons": KeyAggregation(of="coupons"),
        "amount": KeyAggregation(of="amount", digits=4),
        "days": KeyAggregation(of="days", how="min"),
        "first": KeyAggregation(of="firsts", how="max"),
        "matches": KeyAggregation(of="sessions", how="count"),
        "affinity": KeyAggregation(of="sessions", weighted=True, digits=6),
    }
)
KEY_AGGREGATES: Mapping[str, How] = MappingProxyType(
    {"sessions": "sum", "recents": "sum", "coupons": "sum", "amount": "sum", "days": "min", "firsts": "max"}
)
"""What `history_keys` says of a key, and how it comes from the items of that key."""

USER_ITEM_FEATURES = tuple(
    f"user_item_{level}_{aggregation}" for level in LEVELS for aggregation in AGGREGATIONS
)
"""sessions: those in the history window, added up over the items of a key; recent: those of the last 30
days; coupons: events with a coupon; amount: shop currency; days, first: since the last and the first time,
null if never; matches: distinct keys of the candidate in the history; affinity: sessions weighted by the
key's share of the candidate."""

ITEM_LISTS = {
    "covered_id": "items",
    "sessions": "item_sessions",
    "recents": "item_recents",
    "coupons": "item_coupons",
    "amount": "item_amounts",
    "days": "item_days",
    "firsts": "item_firsts",
}
"""Column of `unnest_items` -> list of `features.views.user_history.user_history`."""


TOPIC_LISTS = {
    "topic": "topics",
    "sessions": "topic_sessions",
    "amount": "topic_amounts",
    "days": "topic_days",
}
"""Column of `unnest_topics` -> list of the same."""


def unnest_topics(histories: IbisTable) -> IbisTable:
    """Columns history_id, topic, sessions, amount, days from the lists of `features.views.user_history`."""
    return _unnest(histories, TOPIC_LISTS)


def unnest_items(histories: IbisTable) -> IbisTable:
    """One row per (history, item): columns history_id and those of ITEM_LISTS."""
    return _unnest(histories, ITEM_LISTS)


def history_keys(history_items: IbisTable, levels: IbisTable) -> IbisTable:
    """What a history says of every key that its items belong to.

    Args:
        history_items: as `unnest_items` returns it.
        levels: as `features.views.shop.levels` returns it.

    Returns:
        Columns history_id, level, key, sessions, recents, coupons, amount, days, firsts.
    """
    totals = {name: getattr(_[name], how)() for name, how in KEY_AGGREGATES.items()}
    return (
        history_items.join(levels.rename(covered_id="item_id"), "covered_id")
        .group_by(["history_id", "level", "key"])
        .aggregate(**totals)
    )


def user_item_features(pairs: IbisTable, *, history_keys: IbisTable, item_keys: IbisTable) -> IbisTable:
    """The user–item features of (history, candidate) pairs.

    Args:
        pairs: columns pair_id, history_id, item_id.
        history_keys: as the function of that name returns it.
        item_keys: as `features.views.shop.item_keys` returns it.

    Returns:
        One row per pair: pair_id and USER_ITEM_FEATURES, float64.
    """
    shared = pairs.join(item_keys, "item_id").join(history_keys, ["history_id", "level", "key"])
    of_level = shared.group_by(["pair_id", "level"]).aggregate(
        **{name: aggregation.over_keys() for name, aggregation in AGGREGATIONS.items()}
    )
    columns = [(level, name) for level in LEVELS for name in AGGREGATIONS]
    found = of_level.group_by("pair_id").aggregate(
        **{f"user_item_{level}_{name}": _[name].max(where=_.level == level) for level, name in columns}
    )
    defaults = {f"user_item_{level}_{name}": AGGREGATIONS[name].default for level, name in columns}
    known = {
        name: _[name] if math.isnan(default) else _[name].coalesce(default)
        for name, default in defaults.items()
    }
    return pairs.select("pair_id").left_join(found, "pair_id").select("pair_id", **known)


def _unnest(histories: IbisTable, lists: dict[str, str]) -> IbisTable:
    return histories.select("history_id", **{name: _[column].unnest() for name, column in lists.items()})
