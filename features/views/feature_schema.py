"""The features that a source's examples have, in the order the model takes them, and how texts are put together."""

from dataclasses import dataclass
from typing import Any

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from expectations.contracts.schema import Column
from expectations.contracts.source import Source
from features.views.request_context import CONTEXT_FEATURES
from features.views.user_item import USER_ITEM_FEATURES

USER_SERVICE = "user_v1"
CANDIDATE_SERVICE = "candidate_v1"
"""The Feast feature services, as `features.store.definitions` registers them."""

CONTEXT_COLUMNS = ("channel", "place", "device", "occasion")
"""Columns of an exposure that say where and when in the shopper's life it was shown."""

POSITION = "context_position"
"""Where in its query group an item was shown."""

NOT_FEATURES = frozenset({"item_valid_from", "item_valid_until"})
"""Dates: the days to and since them are the features."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Feature columns by kind; `slices` are the categorical ones that quality is reported by."""

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    slices: tuple[str, ...]


def describe(source: Source, user: ibis.Schema, candidate: ibis.Schema, *, with_position: bool) -> Features:
    """The features of a source.

    Args:
        source: the shop, for its extra columns of exposures.
        user: columns that the user's feature service returns.
        candidate: columns that the candidate's feature service returns.
        with_position: whether the shop says at which position items were shown.
    """
    extras = source.contracts()["exposures"].extras
    retrieved = {
        name: kind
        for schema in (user, candidate)
        for name, kind in schema.items()
        if name.startswith(("user_", "item_")) and name not in ("user_id", "item_id") and not kind.is_array()
    }
    numbers = [n for n, kind in retrieved.items() if kind.is_numeric() and n not in NOT_FEATURES]
    strings = [n for n, kind in retrieved.items() if kind.is_string()]
    of_items = tuple(f"item_{c.name}" for c in source.contracts()["items"].extras if c.extra == "categorical")
    return Features(
        numeric=(
            *sorted(numbers),
            *USER_ITEM_FEATURES,
            *CONTEXT_FEATURES,
            *((POSITION,) if with_position else ()),
            *(f"context_{c.name}" for c in extras if c.extra == "numeric"),
        ),
        categorical=(
            *sorted(strings),
            "context_scenario",
            *(f"context_{name}" for name in CONTEXT_COLUMNS),
            *(f"context_{c.name}" for c in extras if c.extra == "categorical"),
        ),
        slices=(*of_items, "context_scenario"),
    )


def context_columns(extras: tuple[Column, ...]) -> dict[str, Any]:
    """An exposure's own context as feature columns, from a table of exposures."""
    return {
        "context_scenario": _.scenario,
        **{f"context_{name}": _[name] for name in CONTEXT_COLUMNS},
        **{f"context_{c.name}": _[c.name] for c in extras if c.extra != "text"},
    }


def text_columns(extras: tuple[Column, ...]) -> list[Any]:
    """The text columns among a table's extras."""
    return [_[c.name] for c in extras if c.extra == "text"]


def join_texts(texts: list[Any]) -> Any:
    """Texts one after the other, nulls left out; empty where all are null."""
    known = [text.strip().fill_null("") for text in texts]
    if not known:
        return ibis.literal("")
    joined = known[0]
    for text in known[1:]:
        gap = ibis.ifelse((joined == "") | (text == ""), "", " ")
        joined = joined.concat(gap, text)
    return joined


def query_text(extras: tuple[Column, ...]) -> Any:
    """The query, the exposure's text columns and the user's, as one text.

    Expects columns query_text and user_text beside the exposure's; null where all are empty.
    """
    return join_texts([_.query_text, *text_columns(extras), _.user_text]).nullif("")


def text_table(catalogue: IbisTable, exposures: IbisTable, topics: IbisTable) -> IbisTable:
    """Each distinct text of shown candidates, queries and histories, numbered from 0.

    Returns:
        Columns text_id (int32), text.
    """
    shown = catalogue.semi_join(exposures, "item_id").select(text=_.text.fill_null(""))
    queries = exposures.filter(_["query"].notnull()).select(text=_["query"])
    every = ibis.union(shown, queries, topics.select("text"), distinct=True)
    number = ibis.row_number().over(ibis.window(order_by="text"))
    return every.select(text_id=number.cast("int32"), text="text")
