"""Whether the online store says what the offline store says: the same users, the same as-of time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from expectations.storage.masking import OPEN, Mask
from features.store.client import historical, online, open_store
from features.views import feature_schema

TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The result of a comparison.

    Attributes:
        num_users, num_values: what was compared.
        differences: "shopper feature", at most 20.
        num_differences: how many there are.
    """

    num_users: int
    num_values: int
    num_differences: int
    differences: Sequence[str]


def compare_stores(folder: Path, horizon: datetime, *, sample: int = 50, mask: Mask = OPEN) -> Consistency:
    """Compare online with offline features of so many evenly spread shoppers at the horizon (naive UTC).

    `folder` is a version of the source's Feast store.

    `mask` hides who they are.
    """
    store = open_store(folder)
    rows = pq.read_table(folder / "user_behaviour.parquet", columns=["user_id"])
    users = sorted(rows["user_id"].unique().to_pylist())
    chosen = users[:: max(1, len(users) // sample)][:sample]
    entities = pd.DataFrame({"user_id": chosen, "event_timestamp": pd.Timestamp(horizon)})
    offline = {
        row["user_id"]: row for row in historical(store, feature_schema.USER_SERVICE, entities).to_pylist()
    }
    as_of = horizon.replace(tzinfo=UTC).timestamp()
    service = store.get_feature_service(feature_schema.USER_SERVICE)
    found = online(store, service, [{"user_id": user, "as_of": as_of} for user in chosen])
    names = [name for name in found if name != "user_id"]
    differences = [
        f"{mask('user_id', user)} {name}"
        for row, user in enumerate(chosen)
        for name in names
        if not same(found[name][row], offline[user][name])
    ]
    return Consistency(
        num_users=len(chosen),
        num_values=len(chosen) * len(names),
        num_differences=len(differences),
        differences=tuple(differences[:20]),
    )


def same(one: Any, other: Any) -> bool:
    """Whether two feature values are equal; unknown is unknown, as None, as NaN or as an empty list."""
    if isinstance(one, list) or isinstance(other, list):
        left, right = one or [], other or []
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if _unknown(one) or _unknown(other):
        return _unknown(one) and _unknown(other)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


def _unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
