"""A shop's checked tables brought through the product's own doors: feature rows, Feast store, examples."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from expectations.contracts.source import Source
from expectations.storage.atomic import read_json
from expectations.storage.datasets import current_folder
from features.offline.feature_rows import build_feature_rows
from features.offline.training_set import build_examples
from features.store.build import build_store


@dataclass(frozen=True, kw_only=True)
class BuiltShop:
    """What was made of one shop.

    Attributes:
        source: the declaration.
        snapshots: folder of the feature rows.
        store: folder of the Feast store.
        horizon: up to when the data reach, naive UTC.
        home: the folder of everything.
    """

    source: Source
    snapshots: Path
    store: Path
    horizon: datetime
    home: Path

    @classmethod
    def at(cls, home: Path, source: Source) -> "BuiltShop":
        """The shop whose feature rows lie there."""
        snapshots = current_folder(home / "snapshots")
        store = current_folder(home / "store")
        horizon = datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"])
        return cls(source=source, snapshots=snapshots, store=store, horizon=horizon, home=home)

    @property
    def examples(self) -> Path:
        """The examples folder."""
        return current_folder(self.home / "examples")


def build(source: Source, checked: Mapping[str, Path], home: Path, *, memory: str | None = None) -> BuiltShop:
    """Compute features, fill the store, join examples.

    Args:
        source: the declaration.
        checked: folder of each checked table.
        home: where everything is made.
        memory: what features and examples may use.
    """
    build_feature_rows(source, checked, home / "snapshots", memory=memory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast calls its own on-demand views experimental
        build_store(source.name, current_folder(home / "snapshots"), home / "store")
        shop = BuiltShop.at(home, source)
        build_examples(source, checked, shop.store, home / "examples", shop.horizon, memory=memory)
    return shop
