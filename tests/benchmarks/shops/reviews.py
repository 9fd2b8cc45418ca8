"""Reviews in Chinese as a shop's content: each is shown once, and its words say whether it praises."""

from pathlib import Path

import pandas as pd

from tests.benchmarks.shops.shop import Shop, write_files

ROWS, QUICK_ROWS = 3000, 1000
SHOWN = pd.Timestamp("2019-01-01")  # the data name no day


def write(data: Path, folder: Path, quick: bool) -> None:
    """A drawn part of the reviews, each text once."""
    found = pd.read_parquet(data / "online_shopping_10_cats.parquet")
    found["review"] = found["review"].str.strip("\ufeff \n")
    found = found[found["review"].fillna("") != ""].drop_duplicates("review")
    found = found.sample(QUICK_ROWS if quick else ROWS, random_state=0).sort_index()
    names = [f"review {number}" for number in found.index]
    reviews = pd.DataFrame(
        {
            "item_id": names,
            "review": found["review"].to_numpy(),
            "categories": [[cat] for cat in found["cat"]],
        }
    )
    shown = pd.DataFrame({"item_id": names, "shown": SHOWN, "label": found["label"].to_numpy()})
    write_files(folder, "reviews", {"reviews": reviews, "shown": shown})


SHOP = Shop(
    name="reviews",
    about=(
        "Reviews in Chinese (online_shopping_10_cats, 3,000 drawn), each an item that is shown once: does it praise? "
        "Only words decide, and the default language model reads English, so that most of them are unknown characters "
        'to it. No times: whole items are drawn into the parts (`[split] by = "item_id"`).'
    ),
    data="online_shopping_10_cats",
    write=write,
)
