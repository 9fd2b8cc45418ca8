"""Books liked and disliked (TALLRec's book data): will this reader like that book?"""

from pathlib import Path

import pandas as pd

from tests.benchmarks.shops.shop import Shop, write_files
from tests.benchmarks.tallrec.shop import ASKED, read_lines, tables

QUICK_LINES = 300  # of each split
BETWEEN = pd.Timedelta(minutes=30)  # two questions of a split: the data name no times


def write(data: Path, folder: Path, quick: bool) -> None:
    """The tables of the benchmark of TALLRec, every reader asked once; also how many books a reader rated how.

    Not the readers that are made there to be asked again: they are the same person, whose rating of the very book that
    is asked about another one's feedback would tell.
    """
    lines = {split: read_lines(data / f"{split}_json.parquet") for split in ASKED}
    made = tables({split: found[:QUICK_LINES] if quick else found for split, found in lines.items()})
    exposures, feedback = made["exposures"], made["feedback"]
    exposures = exposures[exposures["exposure_id"].str.count(" ") == 1]
    later = exposures["exposure_id"].str.split(" ").str[1].astype(int) * BETWEEN
    exposures = exposures.assign(event_timestamp=exposures["event_timestamp"] + later)
    feedback = feedback[feedback["user_id"].isin(exposures["user_id"])]
    of_reader = pd.Series(later.to_numpy(), index=exposures["user_id"])
    feedback = feedback.assign(
        event_timestamp=feedback["event_timestamp"] + feedback["user_id"].map(of_reader)
    )
    rating = feedback.groupby("user_id")["rating"]
    users = rating.agg(liked="sum", disliked=lambda ratings: (ratings == 0).sum()).reset_index()
    write_files(
        folder,
        "books",
        {"users": users, "items": made["items"], "feedback": feedback, "exposures": exposures},
    )


SHOP = Shop(
    name="books",
    about=(
        "Readers with three to ten books that they liked or disliked, and one more book (TALLRec, RecSys 2023): items "
        "are known by title and author alone, the history is feedback, the reader's attributes are how many were "
        "liked and disliked. Test: the data set's own 2,427 test readers, later than all others."
    ),
    data="tallrec_book",
    write=write,
)
