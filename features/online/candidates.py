"""The items that may be shown, in memory with their latest features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd

from expectations.contracts.shop_tables import SCENARIOS
from expectations.errors import RequestError
from features.store.client import online
from features.views import feature_schema
from features.views.request_context import CALENDAR_FEATURES

if TYPE_CHECKING:
    from feast import FeatureStore

MAX_CANDIDATES = 500
"""A request that names no candidates ranks at most so many, the most popular."""

SCENARIO_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "campaign": ("campaign",),
        "product": ("product",),
        "content": ("content",),
        "ad": ("ad",),
        "search": ("product", "campaign", "content"),
        "customer_service": ("campaign", "product", "content"),
    }
)
"""What may be shown where."""

UNKNOWN = "is unknown: use item ids of the items table, or leave candidates out"
"""Why a candidate is skipped that the catalogue does not have."""

_CHUNK = 2000


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Candidates by item_id with text, validity and features, one row per item.

    Attributes:
        items: the most popular first, by events on what they cover, then by their past outcome rate;
            columns item_type, valid_from, valid_until, text, … and the candidate
            service's features.
    """

    items: pd.DataFrame

    @classmethod
    def load(cls, store: "FeatureStore", folder: Path) -> "Catalogue":
        """Read the catalogue of a store's folder, and the items' features from the online store."""
        catalogue = pd.read_parquet(folder / "catalogue.parquet").rename(columns={"item_type": "kind"})
        ids = catalogue["item_id"].tolist()
        service = store.get_feature_service(feature_schema.CANDIDATE_SERVICE)
        found: list[pd.DataFrame] = []
        for start in range(0, len(ids), _CHUNK):
            entities = [{"item_id": item, "as_of": 0.0} for item in ids[start : start + _CHUNK]]
            found.append(pd.DataFrame(online(store, service, entities)))
        features = (
            pd.concat(found)
            if found
            else pd.DataFrame({"item_id": [], "item_popularity": [], "item_outcome_lift": []})
        )
        features = features.drop(columns=list(CALENDAR_FEATURES), errors="ignore")
        items = catalogue.merge(features, on="item_id", how="left").set_index("item_id")
        items["text"] = items["text"].fillna("")
        for name in items.columns:
            if str(name).startswith("item_"):
                items[name] = _typed(items[name])
        return cls(items=items.sort_values(["item_popularity", "item_outcome_lift"], ascending=False))

    def select(
        self, scenario: str, as_of: datetime, requested: Sequence[str] | None
    ) -> tuple[pd.DataFrame, dict[str, str]]:
        """The candidates of a request.

        Args:
            scenario: one of the contract's scenarios.
            as_of: naive UTC; only items valid then are chosen.
            requested: item ids; None: all of the scenario's types, the MAX_CANDIDATES most popular.

        Returns:
            Rows of `items`, and why wanted items were left out.

        Raises:
            RequestError: unknown scenario, or nothing is left.
        """
        if scenario not in SCENARIOS:
            raise RequestError(f"scenario is {scenario!r}; use one of {', '.join(SCENARIOS)}")
        if requested is None:
            return self._all_of_scenario(scenario, as_of), {}
        known = {item: item in self.items.index for item in requested}
        chosen = self.items.loc[[item for item, there in known.items() if there]]
        valid = self._valid(chosen, as_of)
        skipped = {item: UNKNOWN for item, there in known.items() if not there}
        skipped |= {str(item): _skip_reason(row, as_of) for item, row in chosen[~valid].iterrows()}
        if not valid.any():
            item, reason = next(iter(skipped.items()), ("candidates", "the list is empty"))
            raise RequestError(
                f"none of the candidates may be shown: {item} {reason}; choose others or give context.time"
            )
        return chosen[valid], skipped

    def _all_of_scenario(self, scenario: str, as_of: datetime) -> pd.DataFrame:
        kinds = SCENARIO_TYPES[scenario]
        chosen = self.items[self.items["kind"].isin(kinds) & self._valid(self.items, as_of)]
        if chosen.empty:
            raise RequestError(
                f"nothing may be shown in scenario {scenario} at {as_of:%Y-%m-%d %H:%M} UTC "
                f"(no valid item of type {' or '.join(kinds)}); give context.time or candidates"
            )
        return chosen.head(MAX_CANDIDATES)

    @staticmethod
    def _valid(items: pd.DataFrame, as_of: datetime) -> pd.Series:
        started = items["valid_from"].isna() | (items["valid_from"] <= as_of)
        return started & (items["valid_until"].isna() | (items["valid_until"] > as_of))


def _typed(column: pd.Series) -> pd.Series:
    """Numbers as float32, as in the examples; words as they are, None where unknown."""
    if column.isna().all() or pd.api.types.is_numeric_dtype(column):
        return column.astype("float32")
    return column.astype(object).where(column.notna(), None)


def _skip_reason(item: pd.Series, as_of: datetime) -> str:
    if item["valid_until"] <= as_of:
        return f"ended on {item['valid_until']:%Y-%m-%d %H:%M} UTC"
    return f"begins on {item['valid_from']:%Y-%m-%d %H:%M} UTC"
