"""Chinese reviews as a shop's content, brought through the product's own doors up to training examples.

Each review is an item, shown once to one reader; the outcome says whether it praises what it is about. There is no
time in the data: a random fifth is the test part, drawn by SEED, and shown on the last day. A text that occurs more
than once is never in the test part.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from expectations.contracts.source import read_source
from expectations.storage.datasets import current_folder
from tests.features.built_shop import BuiltShop, build

SEED = 7
FIRST_DAY = datetime(2019, 1, 1)
NUM_DAYS = 10  # before the test part; the last of them is the validation part
TEST_FRACTION = 0.2
READER = "reader"
DECLARED = "source.toml"
SOURCE = f"""
name = "chinese_reviews"
clock = "data"
[tables.items]
location = "items.parquet"
constants = {{ item_type = "content" }}
[tables.exposures]
location = "exposures.parquet"
constants = {{ user_id = "{READER}", scenario = "content", channel = "web" }}
[split]
test_from = {FIRST_DAY + timedelta(days=NUM_DAYS):%Y-%m-%d}
validation_fraction = {1 / NUM_DAYS}
"""


def review_shop(home: Path) -> BuiltShop:
    """The shop that was built there."""
    return BuiltShop.at(home, read_source(home / "raw" / DECLARED))


def build_shop(reviews: pd.DataFrame, home: Path) -> BuiltShop:
    """Land, check, compute features, fill the store, join examples.

    Args:
        reviews: columns `review` (text) and `label` (1: praise, 0: complaint).
        home: an empty folder.
    """
    from expectations.suites.run import validate
    from features.sources.landing import ingest

    declared = _write_raw(reviews, home / "raw")
    source = read_source(declared)
    landed = ingest(source, declared, tables_dir=home / "tables", quarantine_dir=home / "quarantine")
    validate(
        {name: table.folder for name, table in landed.items()},
        source.contracts(),
        checked_dir=home / "checked",
        quarantine_dir=home / "quarantine",
        gx_dir=home / "gx",
        now=datetime.now(UTC).replace(tzinfo=None),
    )
    return build(source, {name: current_folder(home / "checked" / name) for name in landed}, home)


def _write_raw(reviews: pd.DataFrame, folder: Path) -> Path:
    """The shop's own files, and their declaration."""
    folder.mkdir(parents=True)
    names = [f"r{number:05d}" for number in range(len(reviews))]
    items = pd.DataFrame({"item_id": names, "text": reviews["review"].to_numpy()})
    items.to_parquet(folder / "items.parquet", index=False)
    shown_at = FIRST_DAY + pd.to_timedelta(days(reviews["review"]), unit="D") + timedelta(hours=9)
    exposures = pd.DataFrame(
        {
            "exposure_id": names,
            "item_id": names,
            "event_timestamp": shown_at,
            "outcome": reviews["label"].to_numpy() == 1,
            "outcome_timestamp": (shown_at + timedelta(minutes=1)).where(reviews["label"].to_numpy() == 1),
        }
    )
    exposures.to_parquet(folder / "exposures.parquet", index=False)
    declared = folder / DECLARED
    declared.write_text(SOURCE, encoding="utf-8")
    return declared


def days(texts: pd.Series) -> np.ndarray:
    """The day on which each text is shown: NUM_DAYS for the test part, a day before it for the others, (N,)."""
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(texts))
    alone = ~texts.duplicated(keep=False).to_numpy()
    test = order[alone[order]][: round(len(texts) * TEST_FRACTION)]
    known = np.setdiff1d(order, test)
    found = np.full(len(texts), NUM_DAYS)
    found[rng.permutation(known)] = np.arange(len(known)) * NUM_DAYS // len(known)
    return found
