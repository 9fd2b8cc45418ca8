"""Headline tests of a publisher (Upworthy Research Archive): impressions and clicks of each arm, readers unknown."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.shops.shop import Shop, write_files

QUICK_TESTS = 200
CERTAIN = 1.96  # |z| of two click rates


def write(data: Path, folder: Path, quick: bool) -> None:
    """An item and an exposure for each arm; what was tested together is a request."""
    arms = pd.read_parquet(data / "arms.parquet")
    if quick:
        tests = arms["test_id"].drop_duplicates().sample(QUICK_TESTS, random_state=0)
        arms = arms[arms["test_id"].isin(tests)]
    names = [f"arm {number}" for number in arms.index]
    week_of_test = arms.groupby("test_id")["test_week"].transform("min")  # eight tests have arms of two weeks
    weeks = {week: datetime.fromisocalendar(week // 100, week % 100, 1) for week in week_of_test.unique()}
    items = pd.DataFrame({"item_id": names, "text": arms["headline"].to_numpy()})
    exposures = pd.DataFrame(
        {
            "exposure_id": names,
            "request_id": arms["test_id"].to_numpy(),
            "item_id": names,
            "event_timestamp": week_of_test.map(weeks).to_numpy(),
            "impressions": arms["impressions"].to_numpy(),
            "clicks": arms["clicks"].to_numpy(),
            "picture": arms[
                "eyecatcher_id"
            ].to_numpy(),  # not declared: it decides which arms may be compared
            "headline": arms["headline"].to_numpy(),
        }
    )
    write_files(folder, "headlines", {"items": items, "exposures": exposures})


def certain_pairs(exposures: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Places of the better and the worse arm of each pair: one test, one picture, two headlines, |z| > 1.96.

    z of two proportions with their pooled variance.
    """
    arms = exposures.reset_index(drop=True).reset_index(names="place")
    both = arms.merge(arms, on=["request_id", "picture"], suffixes=("", "_other"))
    both = both[(both["place"] < both["place_other"]) & (both["headline"] != both["headline_other"])]
    shown = both[["impressions", "impressions_other"]].to_numpy(float)
    clicked = both[["clicks", "clicks_other"]].to_numpy(float)
    rate = clicked / shown
    pooled = clicked.sum(1) / shown.sum(1)
    deviation = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / shown).sum(1), 1e-12))
    z = (rate[:, 0] - rate[:, 1]) / deviation
    places = both[["place", "place_other"]].to_numpy()[np.abs(z) > CERTAIN]
    first_wins = (z > 0)[np.abs(z) > CERTAIN]
    winner = np.where(first_wins, places[:, 0], places[:, 1])
    return winner, np.where(first_wins, places[:, 1], places[:, 0])


SHOP = Shop(
    name="headlines",
    about=(
        "Arms of real headline tests (Upworthy, 2013 and 2014): impressions and clicks of each, no user, no history; "
        "`request_id` is the test. Only words decide. Test: the weeks from 201425 on. Pairs: of one test, with "
        "the same picture, different headlines and |z| > 1.96, how many are put in the right order."
    ),
    data="upworthy_headlines",
    write=write,
    pairs=certain_pairs,
)
