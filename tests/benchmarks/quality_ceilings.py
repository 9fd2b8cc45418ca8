"""How far the goals are from what can be known: trees with features that no shop has when it must decide.

One knows what each shopper will buy of a candidate's products while it is valid: it leaks on purpose and competes with
nobody; what it still misses is which candidates of a list were really sent, and chance. The other has, instead of
words, counts of just what a candidate's text names.
"""

from pathlib import Path

import pandas as pd

from expectations.storage.datasets import current_folder
from tests.benchmarks.quality_ours import USER_ITEM
from tests.benchmarks.quality_trees import Features
from training.data.dataset import Examples

KEY = ["user_id", "item_id", "event_timestamp"]
FUTURE = ("visits", "items", "amount")
NAMED = ("user_item_topic_", "user_item_category_", "user_item_department_")


def bought_later(checked: Path) -> pd.DataFrame:
    """What each shopper bought of each candidate's products from the exposure to the end of its validity.

    Args:
        checked: the folder of checked tables.

    Returns:
        One row per exposure with such a purchase: user_id, item_id, event_timestamp of the exposure; visits, items
        (different ones), amount (currency).
    """
    import duckdb

    tables = {
        name: str(current_folder(checked / name) / "**" / "*.parquet")
        for name in ("exposures", "items", "relations", "events")
    }
    return duckdb.execute(
        """
        SELECT shown.user_id, shown.item_id, shown.event_timestamp,
               count(DISTINCT bought.session_id) AS visits,
               count(DISTINCT bought.item_id) AS items, sum(bought.amount) AS amount
        FROM read_parquet($exposures) AS shown
        JOIN read_parquet($items) AS candidate USING (item_id)
        JOIN read_parquet($relations) AS edges
          ON edges.source_id = shown.item_id AND edges.relation = 'covers'
        JOIN read_parquet($events) AS bought
          ON bought.user_id = shown.user_id AND bought.item_id = edges.target_id
         AND bought.event_type = 'purchase'
         AND bought.event_timestamp >= shown.event_timestamp
         AND bought.event_timestamp < candidate.valid_until
        GROUP BY ALL
        """,
        tables,
    ).df()


def with_future(table: Features, data: Examples, later: pd.DataFrame) -> Features:
    """All features, and what the shopper will buy."""
    of_row = data.rows[KEY].merge(later, how="left", on=KEY, validate="many_to_one")
    for name in FUTURE:
        table = table.beside(f"future_{name}", of_row[name].fillna(0.0).to_numpy())
    return table


def with_named_counts(table: Features) -> Features:
    """No feature of where shopper and candidate meet, but those of what the candidate's text names."""
    others = [name for name in table.names if name.startswith(USER_ITEM) and not name.startswith(NAMED)]
    return table.without(others)
