"""Books liked and disliked (TALLRec's book data): will this reader like that book?"""

from pathlib import Path

from tests.benchmarks.shops.shop import Shop, write_files
from tests.benchmarks.tallrec.shop import ASKED, read_lines, tables

LINES, QUICK_LINES = 1200, 100  # of each split


def write(data: Path, folder: Path, quick: bool) -> None:
    """The tables of the benchmark of TALLRec; how many books a reader liked and disliked is known of the reader."""
    lines = {split: read_lines(data / f"{split}_json.parquet") for split in ASKED}
    made = tables({split: found[: QUICK_LINES if quick else LINES] for split, found in lines.items()})
    rating = made["feedback"].groupby("user_id")["rating"]
    users = rating.agg(liked="sum", disliked=lambda ratings: (ratings == 0).sum()).reset_index()
    write_files(folder, "books", {"users": users, **made})


SHOP = Shop(
    name="books",
    about=(
        "Readers with three to ten books that they liked or disliked, and one more book (TALLRec, RecSys 2023): items "
        "are known by title and author alone, the history is feedback, the reader's attributes are how many were "
        "liked and disliked. Test: 1,200 of the data set's own test readers, later than all others."
    ),
    data="tallrec_book",
    write=write,
)
