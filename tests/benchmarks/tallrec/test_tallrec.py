"""The parts of the benchmark on TALLRec's book data: lines are read whole, no fit sees what it must not."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.contracts.examples import INTERACTION_HISTORIES, INTERACTION_HISTORY_SCHEMA, ROWS
from tests.benchmarks.tallrec.fits import NUM_FEEDBACK, SENTIMENT, Readers, Setting, draws
from tests.benchmarks.tallrec.shop import ASKED, read_lines, tables
from tests.training.synthetic import write_examples
from training.config.recipe import read_recipe
from training.data.split import TEST, TRAIN, VALIDATION

TEST_FROM = datetime(2004, 5, 1)
PROMPT = (
    'User Preference: "Rising Sun" written by MICHAEL CRICHTON, "I, Claudius" written by Robert Graves\n'
    'User Unpreference: \nWhether the user will like the target book ""The Colonel" written by A. Davis"?'
)


def _lines(folder: Path, prompt: str, output: str) -> Path:
    path = folder / "lines.parquet"
    pq.write_table(pa.table({"input": [prompt], "output": [output]}), path)
    return path


def test_a_line_is_read_whole(tmp_path: Path) -> None:
    (line,) = read_lines(_lines(tmp_path, PROMPT, "Yes."))
    assert line.liked == (("Rising Sun", "MICHAEL CRICHTON"), ("I, Claudius", "Robert Graves"))
    assert line.disliked == () and line.target == ("The Colonel", "A. Davis") and line.label


@pytest.mark.parametrize(("prompt", "output"), [("User Preference: nothing", "Yes."), (PROMPT, "Maybe.")])
def test_a_line_written_otherwise_is_refused(tmp_path: Path, prompt: str, output: str) -> None:
    with pytest.raises(ValueError, match="not a line"):
        read_lines(_lines(tmp_path, prompt, output))


def test_a_book_asked_about_is_in_no_history_of_that_question(tmp_path: Path) -> None:
    (line,) = read_lines(_lines(tmp_path, PROMPT, "No."))
    found = tables({"valid": [line], "test": [line]})
    exposures, feedback = found["exposures"], found["feedback"]
    asked = exposures.merge(feedback, on="user_id", suffixes=("", "_rated"))
    assert (asked["item_id"] != asked["item_id_rated"]).all()
    assert (asked["event_timestamp_rated"] < asked["event_timestamp"]).all()
    assert exposures["user_id"].tolist() == ["valid 0", "valid 0 0", "valid 0 1", "test 0"]
    assert exposures["outcome"].tolist() == [False, True, True, False]
    assert exposures["event_timestamp"].iloc[-1] == ASKED["test"]


@pytest.fixture(name="readers")
def _readers(tmp_path: Path) -> Readers:
    """Ten readers of the valid split, each asked twice, and five of the test split."""
    names = [f"valid {n}{again}" for n in range(10) for again in ("", " 0")] + [f"test {n}" for n in range(5)]
    rows = pd.DataFrame(
        {
            "exposure_id": names,
            "user_id": names,
            "item_id": "i0",
            "scenario": "content",
            "event_timestamp": datetime(2004, 1, 1),
            "query_group_id": range(len(names)),
            "label": np.arange(len(names)) % 2,
            "weight": 1.0,
            "text_id": 0,
            "query_id": -1,
            "history_id": 0,
            NUM_FEEDBACK: np.float32(3),
            SENTIMENT: np.linspace(-1, 1, len(names), dtype=np.float32),
            "context_scenario": "content",
        }
    )
    folder = write_examples(
        tmp_path / "all", rows=rows, texts=["a", "b"], next_interactions=False, test_from=TEST_FROM
    )
    history = {"history_id": [0], "text_ids": [[1]], "sentiments": [[-1.0]]}
    history |= {name: [[1.0]] for name in ("events", "amounts", "days_ago")}
    pq.write_table(pa.table(history, schema=INTERACTION_HISTORY_SCHEMA), folder / INTERACTION_HISTORIES)
    return Readers(folder, read_recipe(None))


def test_readers_are_in_one_part_and_the_unknown_in_none(readers: Readers, tmp_path: Path) -> None:
    known = np.array([7, 1, 2, 3, 4])
    data = readers.examples(Setting(name="all"), known, tmp_path / "out")
    ids = pq.read_table(tmp_path / "out" / ROWS).column("exposure_id").to_pylist()
    found = {
        name: {n for n, p in zip(ids, data.part, strict=True) if p == name} for name in (TRAIN, VALIDATION)
    }
    assert found[VALIDATION] == {"valid 7", "valid 7 0", "valid 1", "valid 1 0"}
    assert found[TRAIN] == {f"valid {n}{again}" for n in (2, 3, 4) for again in ("", " 0")}
    assert [n for n, p in zip(ids, data.part, strict=True) if p == TEST] == [f"test {n}" for n in range(5)]
    assert readers.test_rows()[0].tolist() == pytest.approx(np.linspace(-1, 1, 25)[-5:].tolist())


def test_a_setting_hides_what_it_says(readers: Readers, tmp_path: Path) -> None:
    everything = Setting(name="all")
    known = np.arange(10)
    shown = readers.examples(everything, known, tmp_path / "shown")
    assert (
        shown.schema.numeric == [NUM_FEEDBACK, SENTIMENT] and shown.interaction_histories.features.min() == -1
    )
    hidden = readers.examples(replace(everything, sentiment=False, rate=False), known, tmp_path / "hidden")
    assert hidden.schema.numeric == [NUM_FEEDBACK] and hidden.interaction_histories.features.min() == 0
    once = readers.examples(replace(everything, asked_again=False), known, tmp_path / "once")
    assert len(once.labels) == 15 < len(shown.labels) == 25


def test_draws_differ_and_come_again() -> None:
    first, second = draws(100, 16, 2)
    assert len(set(first)) == 16 and set(first) != set(second)
    assert np.array_equal(first, next(iter(draws(100, 16, 1))))
