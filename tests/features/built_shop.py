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
from features.store.client import StoreSettings, apply_repo, materialize, open_store


@dataclass(frozen=True, kw_only=True)
class BuiltShop:
    """What was made of one shop.

    Attributes:
        source: the declaration.
        snapshots: folder of the feature rows.
        settings: of the Feast store.
        horizon: up to when the data reach, naive UTC.
        home: the folder of everything.
    """

    source: Source
    snapshots: Path
    settings: StoreSettings
    horizon: datetime
    home: Path

    @classmethod
    def at(cls, home: Path, source: Source) -> "BuiltShop":
        """The shop whose feature rows lie there."""
        snapshots = current_folder(home / "snapshots")
        settings = StoreSettings(
            project=source.name,
            registry_url=f"sqlite:///{home / 'registry.db'}",
            online_path=home / "online.db",
        )
        horizon = datetime.fromisoformat(read_json(snapshots / "facts.json")["horizon"])
        return cls(source=source, snapshots=snapshots, settings=settings, horizon=horizon, home=home)

    @property
    def examples(self) -> Path:
        """The examples folder."""
        return current_folder(self.home / "examples")


def build(
    source: Source, checked: Mapping[str, Path], home: Path, *, online: bool = True, memory: str | None = None
) -> BuiltShop:
    """Compute features, fill the store, join examples.

    Args:
        source: the declaration.
        checked: folder of each checked table.
        home: where everything is made.
        online: whether the online store is filled.
        memory: what features and examples may use.
    """
    build_feature_rows(source, checked, home / "snapshots", memory=memory)
    shop = BuiltShop.at(home, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast calls its own on-demand views experimental
        store = open_store(shop.settings)
        apply_repo(store, shop.snapshots)
        examples = home / "examples"
        build_examples(source, checked, shop.snapshots, examples, store, shop.horizon, memory=memory)
        if online:
            materialize(store, shop.horizon)
    return shop
