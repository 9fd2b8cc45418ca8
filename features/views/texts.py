"""Texts: how a row's words are put together, and the table of distinct texts."""

from typing import Any

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable

from expectations.contracts.schema import Column


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
    texts = [_.query_text, *(_[c.name] for c in extras if c.extra == "text"), _.user_text]
    return join_texts(texts).nullif("")


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
