"""TALLRec's book data as a shop: its lines become contract tables, and those go the way of any shop's tables.

A line names the books that a reader liked and disliked and asks about one more. So a reader is a shopper, a
book an item, each liked or disliked book a row of feedback without text, rated 1 or 0, and the question an exposure
whose outcome is the label.

A reader's feedback is a label too: each of it is asked about once more, by a reader of its own who gave all the
other feedback. That is seven more rows for each line, known from the line alone.

The data hold no times: all feedback is of the day before the question.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from expectations.contracts.source import read_source
from features.sources.landing import ingest
from tests.features import built_shop

ASKED = {"valid": datetime(2004, 2, 1), "test": datetime(2004, 6, 1)}
ASKED_AGAIN = datetime(2004, 1, 1)
DAY = timedelta(days=1)
SOURCE = """
name = "tallrec_book"
clock = "data"
[tables.items]
location = "items.parquet"
constants = { item_type = "content" }
[tables.feedback]
location = "feedback.parquet"
[tables.exposures]
location = "exposures.parquet"
constants = { scenario = "content" }
[split]
test_from = 2004-05-01
[features]
history_days = 30
rating_range = [0, 1]
"""
_LINE = re.compile(
    r"User Preference: (?P<liked>.*?)\nUser Unpreference: (?P<disliked>.*?)\n"
    r'Whether the user will like the target book "(?P<target>.*)"\?\s*',
    re.DOTALL,
)
_BOOK = re.compile(r'"(.*?)" written by (.*?)(?=, "|\Z)', re.DOTALL)

Book = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the data.

    Attributes:
        liked, disliked: title and author of the books in the reader's history.
        target: of the book asked about.
        label: whether the reader liked it.
    """

    liked: tuple[Book, ...]
    disliked: tuple[Book, ...]
    target: Book
    label: bool


def read_lines(path: Path) -> list[Line]:
    """The lines of `valid_json.parquet` or `test_json.parquet`.

    Raises:
        ValueError: a line is written in another way.
    """
    table = pq.read_table(path, columns=["input", "output"]).to_pydict()
    return [_line(*texts) for texts in zip(table["input"], table["output"], strict=True)]


def _line(prompt: str, output: str) -> Line:
    found = _LINE.fullmatch(prompt)
    if found is None or output.strip() not in ("Yes.", "No."):
        raise ValueError(f"not a line of TALLRec's book data: {prompt[:200]!r}, {output!r}")
    liked, disliked = (tuple(_BOOK.findall(found[name].strip())) for name in ("liked", "disliked"))
    (target,) = _BOOK.findall(found["target"])
    return Line(liked=liked, disliked=disliked, target=target, label=output.strip() == "Yes.")


def tables(lines: dict[str, list[Line]]) -> dict[str, pd.DataFrame]:
    """Items, feedback and exposures of the lines of each split.

    Exposures are named "<split> <line>", and "<split> <line> <number>" for a book asked about again.
    """
    items: dict[Book, str] = {}
    exposures, feedback = [], []

    def ask(reader: str, book: Book, label: bool, when: datetime, rated: list[tuple[Book, bool]]) -> None:
        exposures.append((reader, reader, items.setdefault(book, f"book {len(items)}"), when, label))
        for rated_book, liked in rated:
            item = items.setdefault(rated_book, f"book {len(items)}")
            feedback.append((f"{reader}, {item} {liked}", reader, item, float(liked), when - DAY))

    for split, of_split in lines.items():
        for number, line in enumerate(of_split):
            rated = [*((book, True) for book in line.liked), *((book, False) for book in line.disliked)]
            ask(f"{split} {number}", line.target, line.label, ASKED[split], rated)
            for place, (book, liked) in enumerate(rated if split == "valid" else ()):
                others = rated[:place] + rated[place + 1 :]
                ask(f"{split} {number} {place}", book, liked, ASKED_AGAIN, others)
    return {
        "items": pd.DataFrame(
            {"item_id": items.values(), "text": [f"{title}, by {author}" for title, author in items]}
        ),
        "feedback": pd.DataFrame(
            feedback, columns=["feedback_id", "user_id", "item_id", "rating", "event_timestamp"]
        ).drop_duplicates("feedback_id"),
        "exposures": pd.DataFrame(
            exposures, columns=["exposure_id", "user_id", "item_id", "event_timestamp", "outcome"]
        ),
    }


def build(data: Path, work: Path) -> Path:
    """Land the data, compute features, join examples; returns the examples folder.

    Args:
        data: folder of the data set's Parquet files.
        work: where everything is made; what is there already is not made again.
    """
    work.mkdir(parents=True, exist_ok=True)
    lines = {split: read_lines(data / f"{split}_json.parquet") for split in ASKED}
    for name, frame in tables(lines).items():
        frame.to_parquet(work / f"{name}.parquet", index=False)
    declaration = work / "source.toml"
    declaration.write_text(SOURCE, encoding="utf-8")
    source = read_source(declaration)
    landed = ingest(source, declaration, tables_dir=work / "tables", quarantine_dir=work / "quarantine")
    checked = {name: table.folder for name, table in landed.items()}
    return built_shop.build(source, checked, work).examples
