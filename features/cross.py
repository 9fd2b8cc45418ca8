"""What a shopper did before with what a candidate covers: its items, lines, topics, …, departments.

The candidate's side changes with the catalogue and the shopper's with every event, so these features
belong to neither entity: they are computed from the shopper's retrieved history when the two meet,
by the same expressions for training examples and for a request.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from features.shop import LEVELS

MEASURES: Mapping[str, Callable[[ibis.Value], ibis.Value]] = MappingProxyType(
    {
        "visits": lambda here: _.visits.sum(where=here),
        "recent": lambda here: _.recents.sum(where=here),
        "coupons": lambda here: _.coupons.sum(where=here),
        "amount": lambda here: _.amount.sum(where=here).round(4),
        "days": lambda here: _.days.min(where=here),
        "first": lambda here: _.firsts.max(where=here),
        "matches": lambda here: _.visits.count(where=here).cast("float64"),
        "affinity": lambda here: (_.visits * _.weight).sum(where=here).round(6),
    }
)
RECENCIES = ("days", "first")

CROSS_FEATURES = tuple(f"cross_{level}_{measure}" for level in LEVELS for measure in MEASURES)
"""visits: sessions in the history window, added up over the items of a key; recent: those of the last 30
days; coupons: acts with a coupon; amount: shop currency; days, first: since the last and the first time,
null if never; matches: distinct keys of the candidate in the history; affinity: visits weighted by the
key's share of the candidate."""

ITEM_LISTS = {
    "covered_id": "items",
    "visits": "item_visits",
    "recents": "item_recents",
    "coupons": "item_coupons",
    "amount": "item_amounts",
    "days": "item_days",
    "firsts": "item_firsts",
}
"""Column of `unnest_items` -> list of `features.behaviour.user_history`."""


def unnest_topics(histories: IbisTable) -> IbisTable:
    """One row per (history, topic) from the parallel lists of `features.behaviour.user_history`.

    Args:
        histories: columns history_id, topics, topic_visits, topic_amounts, topic_days.

    Returns:
        Columns history_id, topic, visits, amount, days.
    """
    lists = {"topic": "topics", "visits": "topic_visits", "amount": "topic_amounts", "days": "topic_days"}
    return _unnest(histories, lists)


def unnest_items(histories: IbisTable) -> IbisTable:
    """One row per (history, item): columns history_id and those of ITEM_LISTS."""
    return _unnest(histories, ITEM_LISTS)


def history_keys(history_items: IbisTable, levels: IbisTable) -> IbisTable:
    """What a history says of every key that its items belong to.

    Args:
        history_items: as `unnest_items` returns it.
        levels: as `features.shop.levels` returns it.

    Returns:
        Columns history_id, level, key, visits, recents, coupons, amount, days, firsts.
    """
    totals = {name: _[name].sum() for name in ("visits", "recents", "coupons", "amount")}
    return (
        history_items.join(levels.rename(covered_id="item_id"), "covered_id")
        .group_by(["history_id", "level", "key"])
        .aggregate(**totals, days=_.days.min(), firsts=_.firsts.max())
    )


def cross_features(pairs: IbisTable, *, history_keys: IbisTable, item_keys: IbisTable) -> IbisTable:
    """The cross features of (history, candidate) pairs.

    Args:
        pairs: columns pair_id, history_id, item_id.
        history_keys: as the function of that name returns it.
        item_keys: as `features.shop.item_keys` returns it.

    Returns:
        One row per pair: pair_id and CROSS_FEATURES, float64.
    """
    met = pairs.join(item_keys, "item_id").join(history_keys, ["history_id", "level", "key"])
    found = met.group_by("pair_id").aggregate(
        **{f"cross_{level}_{name}": m(_.level == level) for level in LEVELS for name, m in MEASURES.items()}
    )
    known = {name: _[name] if name.endswith(RECENCIES) else _[name].coalesce(0.0) for name in CROSS_FEATURES}
    return pairs.select("pair_id").left_join(found, "pair_id").select("pair_id", **known)


def _unnest(histories: IbisTable, lists: dict[str, str]) -> IbisTable:
    return histories.select("history_id", **{name: _[column].unnest() for name, column in lists.items()})
