"""Complete Journey: coupons sent to the households of a grocer, by the product's own connector."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd

from expectations.contracts.source import read_source
from features.sources import COMPLETE_JOURNEY
from features.sources.complete_journey.connector import PACKAGE
from features.sources.landing import ingest
from tests.benchmarks.shops.shop import DECLARED, Shop, write_files

QUICK_HOUSEHOLDS = 50
KEYS = ("users", "events", "exposures")


def write(_data: Path, folder: Path, quick: bool) -> None:
    """The packaged declaration; quick: some households' rows as files of their own."""
    if quick:
        _write_some_households(folder)
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(COMPLETE_JOURNEY, folder / DECLARED)


def _write_some_households(folder: Path) -> None:
    source = read_source(COMPLETE_JOURNEY)
    with tempfile.TemporaryDirectory() as scratch:
        landed = ingest(
            source,
            COMPLETE_JOURNEY,
            tables_dir=Path(scratch) / "tables",
            quarantine_dir=Path(scratch) / "bad",
        )
        users = pd.read_parquet(landed["users"].folder)
        chosen = users["user_id"].sample(QUICK_HOUSEHOLDS, random_state=0).tolist()
        tables = {
            name: pd.read_parquet(landed[name].folder, filters=[("user_id", "in", chosen)]) for name in KEYS
        }
        known = {*tables["events"]["item_id"], *tables["exposures"]["item_id"]}
        items, relations = (pd.read_parquet(landed[name].folder) for name in ("items", "relations"))
    tables["items"] = items[items["item_id"].isin(known)]
    tables["relations"] = relations[relations["source_id"].isin(known) & relations["target_id"].isin(known)]
    write_files(folder, "complete_journey", tables)


SHOP = Shop(
    name="complete_journey",
    about=(
        "800,199 coupons sent to 2,469 households of a grocer, 2,075 of them redeemed, with a year of baskets "
        '(`connector = "complete_journey"`). Test: every campaign from 1 September 2017 on.'
    ),
    package=PACKAGE,
    write=write,
)
