"""A small shop for the tests: shoppers who buy what they like and answer coupons on it, all in real files.

From the contract's tables on everything is made by the project's own code: feature rows, Feast store, examples.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.source import Source, read_source
from serving.api.loading import check
from serving.release.deployment import DeploymentContext
from tests.features import built_shop

SUBJECTS = ("fresh coffee beans", "dog food", "frozen pizza", "garden flowers")
START, DAYS = datetime(2020, 1, 1), 60
HORIZON = START + timedelta(days=DAYS)
NUM_USERS = 24
SOURCE = """
name = "small_shop"
clock = "data"
[tables.items]
location = "items.parquet"
extra = { campaign_type = "categorical" }
[tables.exposures]
location = "exposures.parquet"
extra = { weather = "categorical", basket_value = "numeric" }
[features]
history_days = 40
rating_range = [1, 5]
"""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What was made of one shop."""

    source: Path
    feature_rows: Path
    examples: Path
    store: Path
    horizon: datetime

    @property
    def context(self) -> DeploymentContext:
        return DeploymentContext(source=self.source, store=self.store, check=check)


def build(folder: Path, *, also: list[dict[str, Any]] | None = None) -> Shop:
    """Make a shop up to the online store, in an empty folder; `also` are exposures beside its own."""
    declared = folder / "source.toml"
    folder.mkdir(parents=True, exist_ok=True)
    declared.write_text(SOURCE, encoding="utf-8")
    source = read_source(declared)
    checked = _write(folder / "checked", source, _tables(also or []))
    shop = built_shop.build(source, checked, folder)
    return Shop(
        source=declared,
        feature_rows=shop.snapshots,
        examples=shop.examples,
        store=shop.store,
        horizon=shop.horizon,
    )


def exposure(name: str, user: str, item: str, when: datetime, *, outcome: bool) -> dict[str, Any]:
    return {
        "exposure_id": name,
        "user_id": user,
        "item_id": item,
        "scenario": "campaign",
        "event_timestamp": when,
        "channel": "mail",
        "weather": "rain",
        "basket_value": 12.5,
        "outcome": float(outcome),
        "outcome_timestamp": when + timedelta(hours=5) if outcome else None,
    }


def _tables(also: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    rng = np.random.default_rng(3)
    products = [
        {"item_id": f"p{n}", "item_type": "product", "text": subject, "categories": ["shop", subject]}
        for n, subject in enumerate(SUBJECTS)
    ]
    return {
        "items": [*products, *_coupons()],
        "events": _purchases(rng),
        "exposures": [*_exposures(rng), *also],
        "feedback": _feedback(),
        "relations": [
            {"source_id": f"c{n}", "relation": "covers", "target_id": f"p{n % len(SUBJECTS)}"}
            for n in range(10)
        ],
    }


def _coupons() -> list[dict[str, Any]]:
    """c0 … c7 are always valid, c8 has ended, c9 begins after the data."""
    borders = {8: (START, START + timedelta(days=50)), 9: (HORIZON + timedelta(days=5), None)}
    return [
        {
            "item_id": f"c{n}",
            "item_type": "campaign",
            "text": f"Coupon for {SUBJECTS[n % len(SUBJECTS)]}, offer {n}",
            "categories": ["coupon"],
            "valid_from": borders.get(n, (START, None))[0],
            "valid_until": borders.get(n, (START, None))[1],
            "campaign_type": "A" if n % 2 else "B",
        }
        for n in range(10)
    ]


def _purchases(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for user, day in product(range(NUM_USERS), range(DAYS)):
        if day % 3 != user % 3:
            continue
        liked = user % len(SUBJECTS) if rng.random() < 0.7 else int(rng.integers(len(SUBJECTS)))
        row = {
            "event_id": f"e{user}-{day}",
            "user_id": f"u{user}",
            "item_id": f"p{liked}",
            "event_type": "purchase",
            "event_timestamp": START + timedelta(days=day, hours=10, minutes=user),
            "quantity": 1.0,
            "amount": 2.0 + liked,
            "session_id": f"s{user}-{day}",
        }
        rows.append(row)
    return rows


def _feedback() -> list[dict[str, Any]]:
    """All shoppers but the last say what they like; some what they do not."""
    said = [(user, user % len(SUBJECTS), "just right", 5.0) for user in range(NUM_USERS - 1)]
    said += [(user, (user + 1) % len(SUBJECTS), "never again", 1.0) for user in range(0, NUM_USERS, 3)]
    return [
        {
            "feedback_id": f"f{user}-{product}",
            "user_id": f"u{user}",
            "item_id": f"p{product}",
            "text": text,
            "rating": rating,
            "event_timestamp": START + timedelta(days=25 + user),
        }
        for user, product, text, rating in said
    ]


def _exposures(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for day, user, item in product(range(5, DAYS - 2, 6), range(NUM_USERS), range(9)):
        fits = item % len(SUBJECTS) == user % len(SUBJECTS)
        outcome = bool(rng.random() < (0.5 if fits else 0.05))
        name, when = f"x{day}-{user}-{item}", START + timedelta(days=day, hours=8)
        if when < START + timedelta(days=50) or item != 8:
            rows.append(exposure(name, f"u{user}", f"c{item}", when, outcome=outcome))
    return rows


def _write(folder: Path, source: Source, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Path]:
    contracts, folders = source.contracts(), {}
    for name, rows in tables.items():
        folders[name] = folder / name / "v1"
        folders[name].mkdir(parents=True)
        table = pa.Table.from_pylist(rows, schema=contracts[name].schema)
        pq.write_table(table, folders[name] / "part-0.parquet")
    return folders
