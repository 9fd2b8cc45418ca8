"""Feature rows for the store: computed once, one Parquet file per feature view, and the catalogue."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
from ibis import _
from ibis.expr.types import Table as IbisTable
from tqdm import tqdm

from expectations.contracts.schema import Column
from expectations.contracts.shop_tables import COLD_START_USER
from expectations.contracts.source import Source
from expectations.storage.atomic import write_json
from expectations.storage.datasets import land
from expectations.storage.hashes import fingerprint
from expectations.suites.engine import within_memory
from features.offline.engine import SCRATCH, bounded_engine, write_table
from features.offline.user_blocks import write_by_user_blocks
from features.views.feature_schema import join_texts, text_columns
from features.views.feedback import feedback_summary
from features.views.outcomes import item_outcomes, user_outcomes
from features.views.shop import (
    LEVELS,
    Shop,
    candidates,
    horizon,
    item_entity_rows,
    item_keys,
    levels,
    read_shop,
    user_entity_rows,
)
from features.views.user_behaviour import user_behaviour
from features.views.user_history import user_history
from features.views.windows import EVENT_TIMESTAMP

CODE_VERSION = 9
"""Raise it when a feature's meaning changes, so that nothing made by older code is reused."""

ALWAYS = datetime(1970, 1, 1)
"""Attributes without a date of their own hold from here on."""


def build_feature_rows(
    source: Source, checked: Mapping[str, Path], dataset: Path, *, memory: str | None = None
) -> tuple[dict[str, Any], bool]:
    """Compute all feature rows of a source's checked tables and land them as one version.

    Args:
        source: the shop.
        checked: table name -> folder of the checked version; the folder's name is its version.
        dataset: where to land: one Parquet file per view, catalogue.parquet, item_keys.parquet,
            levels.parquet.
        memory: what the computation may use, such as "6GB".

    Returns:
        The pointer (version, rows per file, horizon) and whether anything was computed.

    Raises:
        SettingError: it fits neither in memory nor on the disk.
    """
    versions = {name: folder.name for name, folder in sorted(checked.items())}
    declared = {name: [str(c) for c in table.extras] for name, table in source.contracts().items()}
    settings = (source.history_days, source.rating_range, sorted(source.outcome_window.items()))
    version = fingerprint("feature_rows", CODE_VERSION, versions, declared, *settings)
    return land(dataset, version, lambda folder: _write(source, checked, folder, memory))


def _write(source: Source, checked: Mapping[str, Path], folder: Path, memory: str | None) -> dict[str, Any]:
    with bounded_engine(memory, folder / SCRATCH) as connection:
        shop = read_shop(connection, checked, source)
        now, num_exposures = horizon(shop), int(shop.exposures.count().execute())
        writers: dict[str, Callable[..., int]] = {
            name: partial(write_table, connection, table)
            for name, table in feature_tables(source, shop, now).items()
        }
        history = partial(user_history, history_days=source.history_days, rating_range=source.rating_range)
        writers["user_history"] = partial(
            write_by_user_blocks,
            connection,
            shop,
            user_entity_rows(shop, now),
            history,
            scratch=folder / SCRATCH,
        )
        rows = {}
        for name, write in tqdm(writers.items(), desc="feature rows", unit="table"):
            with within_memory(name, f"{num_exposures:,} exposures", memory):
                rows[name] = write(path=folder / f"{name}.parquet")
    facts = {"rows": rows, "horizon": now.isoformat()}
    write_json(folder / "facts.json", facts)
    return facts


def feature_tables(source: Source, shop: Shop, now: datetime) -> dict[str, IbisTable]:
    """Every file of a version by name, as expressions; online values are those at `now`, after everything known."""
    contracts = source.contracts()
    users, items = user_entity_rows(shop, now), item_entity_rows(shop, now)
    behaviour = user_behaviour(shop, users, source.history_days)
    outcomes = item_outcomes(shop, items, source.history_days)
    if shop.with_feedback:
        window = (source.history_days, source.rating_range)
        behaviour = behaviour.join(
            feedback_summary(shop, users, "user_id", *window), ["user_id", EVENT_TIMESTAMP]
        )
        outcomes = outcomes.join(
            feedback_summary(shop, items, "item_id", *window), ["item_id", EVENT_TIMESTAMP]
        )
    return {
        "user_behaviour": behaviour,
        "user_outcomes": user_outcomes(shop, users),
        "user_history": user_history(shop, users, source.history_days, source.rating_range),
        "user_attributes": _user_attributes(shop, contracts["users"].extras),
        "item_outcomes": outcomes,
        "item_attributes": _item_attributes(shop, contracts["items"].extras),
        "catalogue": _catalogue(shop, contracts["items"].extras),
        "user_texts": _user_texts(shop, contracts["users"].extras),
        "item_keys": item_keys(shop),
        "levels": levels(shop),
    }


def _user_attributes(shop: Shop, extras: tuple[Column, ...]) -> IbisTable:
    cold_start_user = ibis.memtable({"user_id": [COLD_START_USER]})
    known = ibis.union(shop.users.select("user_id"), cold_start_user, distinct=True)
    return known.left_join(shop.users, "user_id").select(
        "user_id",
        **{EVENT_TIMESTAMP: ibis.literal(ALWAYS).cast("timestamp(6)")},
        user_known=_.user_id_right.notnull().cast("float64"),
        **_as_features("user", extras),
    )


def _item_attributes(shop: Shop, extras: tuple[Column, ...]) -> IbisTable:
    return (candidates(shop).left_join(_breadth(shop), "item_id")).select(
        "item_id",
        *(f"item_num_{level}" for level in LEVELS),
        "item_top_topic_fraction",
        "item_department",
        **{EVENT_TIMESTAMP: ibis.literal(ALWAYS).cast("timestamp(6)")},
        item_type=_.item_type,
        item_value=_.value.cast("float64"),
        item_valid_from=_.valid_from.epoch_seconds().cast("float64"),
        item_valid_until=_.valid_until.epoch_seconds().cast("float64"),
        **_as_features("item", extras),
    )


def _breadth(shop: Shop) -> IbisTable:
    """How much each candidate covers: the number of keys by level, its main topic's fraction, its department."""
    keys = item_keys(shop)
    count = {f"item_num_{level}": (_.level == level).cast("float64").sum() for level in LEVELS}
    wide = keys.group_by("item_id").aggregate(
        **count, item_top_topic_fraction=ibis.ifelse(_.level == "topic", _.weight, 0.0).max()
    )
    first = ibis.window(group_by="item_id", order_by=[_.weight.desc(), _.key])
    departments = keys.filter(_.level == "department").mutate(place=ibis.row_number().over(first))
    main = departments.filter(_.place == 0).select("item_id", item_department="key")
    return wide.left_join(main, "item_id").drop("item_id_right")


def _as_features(prefix: str, extras: tuple[Column, ...]) -> dict[str, Any]:
    kinds = {"numeric": "float64", "categorical": "string"}
    return {f"{prefix}_{c.name}": _[c.name].cast(kinds[c.extra]) for c in extras if c.extra in kinds}


def _catalogue(shop: Shop, extras: tuple[Column, ...]) -> IbisTable:
    """One row per candidate: what is shown of it, what rules of a shop can ask of it, the text that the model reads."""
    texts = [_.text, *text_columns(extras)]
    return candidates(shop).select(
        "item_id",
        "item_type",
        "categories",
        "brand",
        "valid_from",
        "valid_until",
        "value",
        "image",
        text=join_texts(texts),
    )


def _user_texts(shop: Shop, extras: tuple[Column, ...]) -> IbisTable:
    """One row per shopper: the source's text columns of the shopper, as one text."""
    return shop.users.select("user_id", user_text=join_texts(text_columns(extras)))
