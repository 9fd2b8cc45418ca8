"""A small shop whose tables pass every rule, written as ingestion writes them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.schema import Table
from expectations.contracts.shop_tables import CONTRACTS

NOW = datetime(2026, 6, 1)
START = datetime(2026, 1, 10)

Rows = dict[str, list[dict[str, Any]]]

SHOP_CONTRACTS: Mapping[str, Table] = {
    **CONTRACTS,
    "items": CONTRACTS["items"].with_extras({"discount": "numeric"}),
}


def good_shop() -> Rows:
    """20 shoppers, 10 items, 40 events, 60 exposures of which every fourth has an answer, …"""
    validity = {"valid_from": datetime(2026, 1, 1), "valid_until": datetime(2026, 12, 31)}
    item = {"item_type": "campaign", **validity, "value": 1.5, "discount": 0.1}
    words = {"text": "just what I was looking for"}
    return {
        "users": [{"user_id": f"u{n}", "created_at": START} for n in range(20)],
        "items": [
            {"item_id": f"i{n}", "text": f"Ten percent off on coffee, offer {n}", **item} for n in range(10)
        ],
        "events": [
            {
                **_user_item("event", n),
                "item_id": f"i{n % 10}" if n % 5 else None,
                "event_type": "view" if n % 2 else "purchase",
                "quantity": 1.0,
                "amount": 2.0 + n % 7,
            }
            for n in range(40)
        ],
        "exposures": [
            {
                **_user_item("exposure", n),
                "scenario": "campaign",
                "position": 1 + n % 3,
                "propensity": 0.25,
                "outcome": float(n % 4 == 0),
                "outcome_timestamp": START + timedelta(days=n, hours=1) if n % 4 == 0 else None,
            }
            for n in range(60)
        ],
        "feedback": [{**_user_item("feedback", n), **words} for n in range(5)],
        "relations": [
            {"source_id": f"i{n}", "relation": "covers", "target_id": f"i{n + 1}"} for n in range(5)
        ],
    }


def _user_item(what: str, n: int) -> dict[str, Any]:
    """The columns of a row that says when a shopper met an item."""
    return {
        f"{what}_id": f"{what[0] if what != 'exposure' else 'x'}{n}",
        "user_id": f"u{n % 20}",
        "item_id": f"i{n % 10}",
        "event_timestamp": START + timedelta(days=n),
    }


def write_shop(folder: Path, rows: Rows, contracts: Mapping[str, Table] = SHOP_CONTRACTS) -> dict[str, Path]:
    """Write the tables in the layout of ingestion; table -> folder of its version."""
    return {name: write_table(folder / name / "v1", contracts[name], rows[name]) for name in rows}


def write_table(folder: Path, contract: Table, rows: list[dict[str, Any]]) -> Path:
    """Write one table: one file, or one a month where it has an event time."""
    parts: dict[str, list[dict[str, Any]]] = {"": []} if not contract.event_time or not rows else {}
    for row in rows:
        event_time = row.get(contract.event_time) if contract.event_time else None
        parts.setdefault(f"month={event_time or START:%Y-%m}" if contract.event_time else "", []).append(row)
    for part, part_rows in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist(part_rows, schema=contract.schema), folder / part / "part-0.parquet"
        )
    return folder


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a version, file by file."""
    return [
        row for file in sorted(folder.rglob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()
    ]
