"""What a shopper did before with what a candidate covers: its products, its topics, its departments.

The candidate's side changes with the catalogue and the shopper's with every event, so these features
belong to neither entity: they are computed from the shopper's retrieved history when the two meet,
by the same expressions for training examples and for a request.
"""

from ibis import _
from ibis.expr.types import Table as IbisTable

CROSS_FEATURES = (
    "cross_item_visits",
    "cross_item_amount",
    "cross_item_days",
    "cross_item_matches",
    "cross_topic_visits",
    "cross_topic_amount",
    "cross_topic_days",
    "cross_topic_matches",
    "cross_topic_share",
    "cross_topic_affinity",
    "cross_department_visits",
    "cross_department_amount",
)
"""visits: sessions in the history window; amount: shop currency; days: since the last time, null if
never; matches: distinct items or topics of the candidate in the history; share: of all the history's
topic visits; affinity: topic visits weighted by the topic's share of the candidate."""


def unnest_topics(histories: IbisTable) -> IbisTable:
    """One row per (history, topic) from the parallel lists of `features.behaviour.user_history`.

    Args:
        histories: columns history_id, topics, topic_visits, topic_amounts, topic_days.

    Returns:
        Columns history_id, topic, visits, amount, days.
    """
    return _unnest(histories, "topics", "topic", "topic")


def unnest_items(histories: IbisTable) -> IbisTable:
    """One row per (history, item): columns history_id, covered_id, visits, amount, days."""
    return _unnest(histories, "items", "item", "covered_id")


def cross_features(
    pairs: IbisTable,
    *,
    history_topics: IbisTable,
    history_items: IbisTable,
    item_topics: IbisTable,
    coverage: IbisTable,
) -> IbisTable:
    """The cross features of (history, candidate) pairs.

    Args:
        pairs: columns pair_id, history_id, item_id.
        history_topics: as `unnest_topics` returns it.
        history_items: as `unnest_items` returns it.
        item_topics: as `features.shop.item_topics` returns it.
        coverage: as `features.shop.coverage` returns it.

    Returns:
        One row per pair: pair_id and CROSS_FEATURES, float64.
    """
    by_item = (
        pairs.join(coverage, "item_id")
        .join(history_items, ["history_id", "covered_id"])
        .group_by("pair_id")
        .aggregate(
            cross_item_visits=_.visits.sum(),
            cross_item_amount=_.amount.sum().round(4),
            cross_item_days=_.days.min(),
            cross_item_matches=_.count().cast("float64"),
        )
    )
    by_topic = (
        pairs.join(item_topics, "item_id")
        .join(history_topics, ["history_id", "topic"])
        .group_by("pair_id")
        .aggregate(
            cross_topic_visits=_.visits.sum(),
            cross_topic_amount=_.amount.sum().round(4),
            cross_topic_days=_.days.min(),
            cross_topic_matches=_.count().cast("float64"),
            cross_topic_affinity=(_.visits * _.weight).sum().round(6),
        )
    )
    found = pairs
    for part in (by_item, by_topic, _by_department(pairs, history_topics, item_topics)):
        found = found.left_join(part, "pair_id").drop("pair_id_right")
    found = found.left_join(_total_visits(history_topics), "history_id").mutate(
        cross_topic_share=_.cross_topic_visits / _.total_visits
    )
    recency = ("cross_item_days", "cross_topic_days")
    return found.select(
        "pair_id",
        **{n: _[n] if n in recency else _[n].coalesce(0.0) for n in CROSS_FEATURES},
    )


def _by_department(pairs: IbisTable, history_topics: IbisTable, item_topics: IbisTable) -> IbisTable:
    """Visits and amounts in the departments that the candidate covers."""
    departments = item_topics.select("topic", "department").distinct()
    history = (
        history_topics.join(departments, "topic")
        .group_by(["history_id", "department"])
        .aggregate(visits=_.visits.sum(), amount=_.amount.sum())
    )
    return (
        pairs.join(item_topics.select("item_id", "department").distinct(), "item_id")
        .join(history, ["history_id", "department"])
        .group_by("pair_id")
        .aggregate(
            cross_department_visits=_.visits.sum(),
            cross_department_amount=_.amount.sum().round(4),
        )
    )


def _total_visits(history_topics: IbisTable) -> IbisTable:
    return history_topics.group_by("history_id").aggregate(total_visits=_.visits.sum().nullif(0.0))


def _unnest(histories: IbisTable, lists: str, prefix: str, name: str) -> IbisTable:
    columns = {"visits": f"{prefix}_visits", "amount": f"{prefix}_amounts", "days": f"{prefix}_days"}
    return histories.select(
        "history_id",
        **{name: _[lists].unnest()},
        **{column: _[source].unnest() for column, source in columns.items()},
    )
