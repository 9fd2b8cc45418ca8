"""Parts by whole groups; those by time are tested with the recipe."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from expectations.errors import DataError, SchemaError
from tests.training.fits import run
from tests.training.synthetic import make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.evaluation.evaluate import evaluate

NUM_USERS = 60


def split_examples(folder: Path, split_by: str, *, num_users: int = NUM_USERS, first: int = 0) -> Examples:
    """Rows of one timestamp, an eighth of them without a user and most without a query."""
    rows = make_rows(np.random.default_rng(0), num_users, 2)
    rows["event_timestamp"] = datetime(2020, 1, 1)
    rows.loc[rows["query_group_id"] % 8 == 0, "user_id"] = ""
    rows = rows[rows["history_id"] >= first]
    return read_examples(
        write_examples(
            folder,
            num_users=num_users,
            rows=rows,
            split_by=split_by,
            texts=[f"text {number}" for number in range(20)],
            next_interactions=False,
        )
    )


@pytest.mark.parametrize("split_by", ["user_id", "query"])
def test_a_group_is_in_one_part_though_all_timestamps_are_equal(split_by: str, tmp_path: Path) -> None:
    data = split_examples(tmp_path, split_by)
    column = "query_id" if split_by == "query" else split_by
    group = data.columns[column].astype(np.int64)
    absent = group < 0 if split_by == "query" else (data.rows["user_id"] == "").to_numpy()
    group = np.where(absent, -1 - data.columns["query_group_id"], group)
    part = np.asarray(data.part)
    assert set(part) == {TRAIN, VALIDATION, TEST}
    assert all(len(set(part[group == number])) == 1 for number in np.unique(group))


def test_fractions_of_the_groups_are_as_asked(tmp_path: Path) -> None:
    data = split_examples(tmp_path, "user_id", num_users=400)
    fractions = {name: float((data.part == name).mean()) for name in (TRAIN, VALIDATION, TEST)}
    assert fractions == pytest.approx({TRAIN: 0.6, VALIDATION: 0.2, TEST: 0.2}, abs=0.06)


def test_a_group_keeps_its_part_where_others_come(tmp_path: Path) -> None:
    every, some = (split_examples(tmp_path / str(first), "user_id", first=first) for first in (0, 30))
    parts = [dict(zip(data.rows["user_id"], data.part, strict=True)) for data in (every, some)]
    assert all(parts[0][user] == part for user, part in parts[1].items() if user)


def test_what_cannot_be_split_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 groups by user_id, none is in the"):
        split_examples(tmp_path / "few", "user_id", num_users=1)
    with pytest.raises(SchemaError, match="choose one of user_id, item_id, query"):
        split_examples(tmp_path / "unknown", "scenario")


def test_rows_of_one_timestamp_are_fitted_and_measured_by_groups(short: Recipe, tmp_path: Path) -> None:
    rows = make_rows(np.random.default_rng(0), NUM_USERS, 4)
    rows["event_timestamp"] = datetime(2020, 1, 1)
    folder = write_examples(
        tmp_path / "examples", num_users=NUM_USERS, rows=rows, split_by="user_id", test_from=None
    )
    bundle = run(folder, short, tmp_path).bundle
    found = evaluate(bundle, folder, progress=False)
    data = read_examples(folder)
    assert found["model"]["num_exposures"] == (data.part == TEST).sum()
    assert found["model"]["auc"] > 0.6
