"""Attributes of items, shoppers and requests under the names that a shop's rules call them by.

    item.…      columns of the catalogue, and features of items without their prefix: item_discount is item.discount
    user.…      features of shoppers without their prefix: user_age is user.age; user.user_id
    context.…   context of an exposure, scenario and query
    now         the request's time

What is unknown is None, an unknown list empty. Times have a zone, UTC.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pandas as pd

from expectations.contracts.schema import ColumnType
from features.online.candidates import Catalogue
from features.online.reader import DecisionRequest, OnlineFeatures
from features.views.feature_schema import CONTEXT_COLUMNS, NOT_FEATURES

_CATALOGUE: Mapping[str, tuple[str, ColumnType]] = MappingProxyType(
    {
        "item.item_id": ("item_id", "string"),
        "item.item_type": ("kind", "string"),
        "item.text": ("text", "string"),
        "item.categories": ("categories", "strings"),
        "item.brand": ("brand", "string"),
        "item.value": ("value", "number"),
        "item.valid_from": ("valid_from", "timestamp"),
        "item.valid_until": ("valid_until", "timestamp"),
    }
)


def variable_types(features: OnlineFeatures) -> dict[str, ColumnType]:
    """Every variable of a release -> its type."""
    known: dict[str, ColumnType] = {
        f"{side}.{name.removeprefix(f'{side}_')}": kind
        for side in ("item", "user")
        for name, kind in features.types.items()
        if name.startswith(f"{side}_") and name not in NOT_FEATURES
    }
    known |= {name: kind for name, (_, kind) in _CATALOGUE.items()}
    known["user.user_id"] = "string"
    known |= {f"context.{name}": "string" for name in (*CONTEXT_COLUMNS, "scenario", "query")}
    known |= {f"context.{name}": column.type for name, column in features.context_extras.items()}
    return {**known, "now": "timestamp"}


def item_columns(catalogue: Catalogue, names: Iterable[str]) -> dict[str, list[Any]]:
    """Variable -> its values for all items of a catalogue, in their order; KeyError where it has none."""
    items = catalogue.items.reset_index()
    found = {}
    for name in names:
        column, kind = _CATALOGUE.get(name, (f"item_{name.removeprefix('item.')}", "number"))
        found[name] = [_value(value, kind) for value in _plain(items[column])]
    return found


def request_values(decision_request: DecisionRequest, user: Mapping[str, Any]) -> dict[str, Any]:
    """Variable -> its value, of those of the shopper and the request; what is missing is unknown.

    Args:
        decision_request: the request.
        user: the shopper's features at its time, by name.
    """
    own = {
        f"user.{name.removeprefix('user_')}": _value(value)
        for name, value in user.items()
        if name.startswith("user_")
    }
    said = {
        f"context.{name}": float(value) if isinstance(value, int) else value
        for name, value in decision_request.context.items()
    }
    return {
        **own,
        **said,
        "user.user_id": decision_request.user_id,
        "context.scenario": decision_request.scenario,
        "context.query": decision_request.query,
        "now": decision_request.as_of.replace(tzinfo=UTC),
    }


def _plain(column: pd.Series) -> list[Any]:
    """Values as the shop wrote them: 0.3, which is 0.30000001 as float32, is 0.3 again."""
    if column.dtype == "float32":
        return [float(str(value)) for value in column.to_numpy()]
    return column.tolist()


def _value(value: Any, kind: ColumnType = "number") -> Any:
    if kind == "strings":
        return [] if value is None or isinstance(value, float) else [str(part) for part in value]
    if value is None or (not isinstance(value, list) and pd.isna(value)):
        return None
    if isinstance(value, datetime):
        return pd.Timestamp(value).to_pydatetime().replace(tzinfo=UTC)
    return value
