"""Advertisements of a fashion shop, shown by a uniformly random policy (Open Bandit Dataset, small sample)."""

from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.shops.shop import Shop, write_files

CAMPAIGNS = ("men", "women")
QUICK_ROWS = 1500  # of each campaign
HASHES = [f"user_feature_{number}" for number in range(4)]


def write(data: Path, folder: Path, quick: bool) -> None:
    """An impression is an exposure without a user; what is known of the reader is in the exposure's own columns."""
    logs, items = [], []
    for campaign in CAMPAIGNS:
        log = pd.read_parquet(data / f"random_{campaign}.parquet")
        affinity = log[[f"user-item_affinity_{item}" for item in range(log["item_id"].max() + 1)]].to_numpy()
        log["affinity"] = affinity[np.arange(len(log)), log["item_id"]]  # of this reader to the item shown
        log["exposure_id"] = [f"{campaign} {number}" for number in log.index]
        logs.append(_named(log.sample(QUICK_ROWS, random_state=0) if quick else log, campaign))
        items.append(_named(pd.read_parquet(data / f"item_context_{campaign}.parquet"), campaign))
    log = pd.concat(logs)[
        [
            "exposure_id",
            "item_id",
            "timestamp",
            "position",
            "propensity_score",
            "click",
            "campaign",
            *HASHES,
            "affinity",
        ]
    ]
    write_files(folder, "bandit", {"items": pd.concat(items).drop(columns="Unnamed: 0"), "log": log})


def _named(frame: pd.DataFrame, campaign: str) -> pd.DataFrame:
    """Items of two campaigns have the same numbers."""
    return frame.assign(item_id=campaign + " " + frame["item_id"].astype(str), campaign=campaign)


SHOP = Shop(
    name="bandit",
    about=(
        "Impressions of a fashion shop's advertisements (Open Bandit Dataset, small sample), chosen at random, with "
        "position and propensity; hashed attributes of reader and item, no words, no user, about one click in 200. "
        "Test: the last fifth by time. So few clicks part nobody from a constant: nothing must be made up of them."
    ),
    data="open_bandit_small",
    write=write,
)
