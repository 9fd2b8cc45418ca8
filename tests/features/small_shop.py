"""A small shop drawn from a seed: enough shoppers, campaigns and events for features to differ."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.source import Source, TableSource

START = pd.Timestamp("2024-01-01")
SOURCE = Source(
    name="small_shop",
    connector="tables",
    tables={
        "users": TableSource(extra={"city": "categorical", "age": "numeric", "hobby": "text"}),
        "items": TableSource(extra={"kind_of_offer": "categorical", "discount": "numeric", "terms": "text"}),
        "exposures": TableSource(extra={"weather": "categorical", "basket": "numeric", "banner": "text"}),
    },
    test_from=datetime(2024, 5, 1),
    history_days=60,
    rating_range=(1.0, 5.0),
    outcome_window={"campaign": 28.0},
)


def frames(seed: int = 0, *, num_users: int = 12, num_events: int = 400) -> dict[str, pd.DataFrame]:
    """The contract's tables as frames."""
    rng = np.random.default_rng(seed)
    users = [f"u{n}" for n in range(num_users)]
    products, campaigns = [f"p{n}" for n in range(20)], [f"c{n}" for n in range(6)]
    categories = [["food", "dairy", f"type {n % 7}"] if n % 5 else None for n in range(20)]
    starts = [START + pd.Timedelta(days=20 * n) for n in range(6)]
    items = pd.DataFrame(
        {
            "item_id": [*products, *campaigns],
            "item_type": ["product"] * 20 + ["campaign"] * 6,
            "text": [f"product number {n}" for n in range(20)] + [f"coupon for type {n}" for n in range(6)],
            "categories": [*categories, *[["food", "dairy", f"type {n}"] for n in range(6)]],
            "valid_from": [None] * 20 + starts,
            "valid_until": [None] * 20 + [start + pd.Timedelta(days=30) for start in starts],
            "kind_of_offer": [None] * 20 + ["A", "B"] * 3,
            "discount": [None] * 20 + [0.1, 0.2, 0.3] * 2,
            "terms": [None] * 20 + ["not on Sundays"] * 6,
        }
    )
    when = START + pd.to_timedelta(rng.integers(0, 150 * 24, num_events), unit="h")
    events = pd.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(num_events)],
            "user_id": rng.choice(users[:-1], num_events),
            "item_id": rng.choice(products, num_events),
            "event_type": rng.choice(["view", "click", "purchase"], num_events),
            "event_timestamp": when,
            "amount": rng.uniform(0, 20, num_events).round(2),
            "dwell_seconds": rng.uniform(0, 90, num_events).round(1),
            "session_id": [f"s{n // 3}" for n in range(num_events)],
        }
    )
    shown = [(user, n) for n in range(6) for user in users if rng.uniform() < 0.8]
    positive = rng.uniform(size=len(shown)) < 0.3
    times = [starts[n] for _, n in shown]
    exposures = pd.DataFrame(
        {
            "exposure_id": [f"x{n}" for n in range(len(shown))],
            "user_id": [user for user, _ in shown],
            "item_id": [campaigns[n] for _, n in shown],
            "scenario": "campaign",
            "event_timestamp": times,
            "channel": rng.choice(["mail", "app"], len(shown)),
            "query_text": [None if n % 2 else "something with milk" for n in range(len(shown))],
            "outcome": positive.astype(float),
            "outcome_timestamp": [
                time + pd.Timedelta(days=int(day)) if yes else None
                for time, yes, day in zip(times, positive, rng.integers(0, 28, len(shown)), strict=True)
            ],
            "weather": rng.choice(["sun", "rain"], len(shown)),
            "basket": rng.uniform(0, 50, len(shown)),
            "banner": "spring",
        }
    )
    relations = pd.DataFrame(
        [
            (campaigns[n], "covers", product)
            for n in range(5)
            for product in rng.choice(products, 4, replace=False)
        ],
        columns=["source_id", "relation", "target_id"],
    )
    feedback = pd.DataFrame(
        {
            "feedback_id": [f"f{n}" for n in range(60)],
            "user_id": rng.choice(users[:-1], 60),
            "item_id": rng.choice([*products, None], 60),
            "text": rng.choice(["far too salty", "my favourite", ""], 60),
            "rating": rng.choice([1.0, 2.0, 4.0, 5.0, None], 60),
            "event_timestamp": START + pd.to_timedelta(rng.integers(0, 150 * 24, 60), unit="h"),
        }
    )
    shoppers = pd.DataFrame(
        {"user_id": users, "city": "Basel", "age": np.arange(num_users) + 20.0, "hobby": "cooking"}
    )
    return {
        "users": shoppers,
        "items": items,
        "events": events,
        "exposures": exposures,
        "feedback": feedback,
        "relations": relations,
    }


def land(folder: Path, tables: dict[str, pd.DataFrame], source: Source = SOURCE) -> dict[str, Path]:
    """Write frames as landed tables, each with its contract's exact schema."""
    folders = {}
    for name, frame in tables.items():
        full = frame.astype(object)
        rows = full.where(full.notna(), None).to_dict("records")
        folders[name] = folder / name
        folders[name].mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=source.contracts()[name].schema)
        pq.write_table(table, folders[name] / "part-0.parquet")
    return folders
