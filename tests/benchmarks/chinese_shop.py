"""Chinese reviews as a shop's content, brought through the product's own doors up to training examples.

Each review is an item, shown once to one reader; the outcome says whether it praises what it is about. There is no
time in the data: a random fifth is the test part, drawn by SEED, and shown on the last day. A text that occurs more
than once is never in the test part.
"""

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from expectations.contracts.source import Source, read_source
from expectations.storage import datasets as landing
from features.store.client import StoreSettings

SEED = 7
FIRST_DAY, NUM_DAYS = (
    datetime(2019, 1, 1),
    10,
)  # before the test part; the last of them is the validation part
TEST_SHARE = 0.2
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


@dataclass(frozen=True, kw_only=True)
class ReviewShop:
    """What was made of the reviews.

    Attributes:
        home: the folder of everything.
        source: the declaration.
        snapshots: the feature rows.
        settings: of the Feast store.
        horizon: the moment up to which the data reach.
    """

    home: Path
    source: Source
    snapshots: Path
    settings: StoreSettings
    horizon: datetime

    @classmethod
    def at(cls, home: Path) -> "ReviewShop":
        """The shop that was built there."""
        source = read_source(home / "raw" / DECLARED)
        snapshots = landing.current_folder(home / "snapshots")
        facts = landing.read_json(snapshots / "facts.json")
        settings = StoreSettings(
            project=source.name,
            registry_url=f"sqlite:///{home / 'registry.db'}",
            online_path=home / "online.db",
        )
        horizon = datetime.fromisoformat(facts["horizon"])
        return cls(home=home, source=source, snapshots=snapshots, settings=settings, horizon=horizon)

    @property
    def examples(self) -> Path:
        """The examples folder."""
        return landing.current_folder(self.home / "examples")


def build_shop(reviews: pd.DataFrame, home: Path) -> ReviewShop:
    """Land, check, compute features, fill the store, join examples.

    Args:
        reviews: columns `review` (text) and `label` (1: praise, 0: complaint).
        home: an empty folder.
    """
    from expectations.suites.run import validate
    from features.offline.feature_rows import build_feature_rows
    from features.offline.training_set import build_examples
    from features.sources.landing import ingest
    from features.store.client import apply_repo, materialize, open_store

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
    checked = {name: landing.current_folder(home / "checked" / name) for name in landed}
    build_feature_rows(source, checked, home / "snapshots")
    shop = ReviewShop.at(home)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast calls its own on-demand views experimental
        store = open_store(shop.settings)
        apply_repo(store, shop.snapshots)
        build_examples(source, checked, shop.snapshots, home / "examples", store, shop.horizon)
        materialize(store, shop.horizon)
    return shop


def _write_raw(reviews: pd.DataFrame, folder: Path) -> Path:
    """The shop's own files, and their declaration."""
    folder.mkdir(parents=True)
    names = [f"r{number:05d}" for number in range(len(reviews))]
    items = pd.DataFrame({"item_id": names, "text": reviews["review"].to_numpy()})
    items.to_parquet(folder / "items.parquet", index=False)
    moments = FIRST_DAY + pd.to_timedelta(days(reviews["review"]), unit="D") + timedelta(hours=9)
    exposures = pd.DataFrame(
        {
            "exposure_id": names,
            "item_id": names,
            "event_timestamp": moments,
            "outcome": reviews["label"].to_numpy() == 1,
            "outcome_timestamp": (moments + timedelta(minutes=1)).where(reviews["label"].to_numpy() == 1),
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
    tested = order[alone[order]][: round(len(texts) * TEST_SHARE)]
    learned = np.setdiff1d(order, tested)
    found = np.full(len(texts), NUM_DAYS)
    found[rng.permutation(learned)] = np.arange(len(learned)) * NUM_DAYS // len(learned)
    return found
