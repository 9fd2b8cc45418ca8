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
    users = [{"user_id": f"u{number}", "created_at": START} for number in range(20)]
    items = [
        {
            "item_id": f"i{number}",
            "item_type": "campaign",
            "text": f"Ten percent off on coffee, offer {number}",
            "valid_from": datetime(2026, 1, 1),
            "valid_until": datetime(2026, 12, 31),
            "value": 1.5,
            "discount": 0.1,
        }
        for number in range(10)
    ]
    events = [
        {
            "event_id": f"e{number}",
            "user_id": f"u{number % 20}",
            "item_id": f"i{number % 10}" if number % 5 else None,
            "event_type": "view" if number % 2 else "purchase",
            "event_timestamp": START + timedelta(days=number),
            "quantity": 1.0,
            "amount": 2.0 + number % 7,
            "dwell_seconds": None,
        }
        for number in range(40)
    ]
    exposures = [_exposure(number) for number in range(60)]
    feedback = [
        {
            "feedback_id": f"f{number}",
            "user_id": f"u{number}",
            "item_id": f"i{number}",
            "text": "just what I was looking for",
            "event_timestamp": START + timedelta(days=number),
        }
        for number in range(5)
    ]
    relations = [
        {"source_id": f"i{number}", "relation": "covers", "target_id": f"i{number + 1}"}
        for number in range(5)
    ]
    return {
        "users": users,
        "items": items,
        "events": events,
        "exposures": exposures,
        "feedback": feedback,
        "relations": relations,
    }


def _exposure(number: int) -> dict[str, Any]:
    shown_at = START + timedelta(days=number)
    return {
        "exposure_id": f"x{number}",
        "user_id": f"u{number % 20}",
        "item_id": f"i{number % 10}",
        "scenario": "campaign",
        "event_timestamp": shown_at,
        "position": 1 + number % 3,
        "propensity": 0.25,
        "outcome": number % 4 == 0,
        "outcome_timestamp": shown_at + timedelta(hours=1) if number % 4 == 0 else None,
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
