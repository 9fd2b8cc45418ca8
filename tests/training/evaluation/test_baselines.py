"""Baselines against what they should find in data that was made to be found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.synthetic import make_rows, write_examples
from training.data.collate import Collator
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN
from training.data.transforms import fit_transforms
from training.evaluation import baselines
from training.evaluation.metrics import auc, log_loss


@pytest.fixture(name="rows")
def _rows() -> pd.DataFrame:
    return make_rows(np.random.default_rng(0), 24, 12)


def collated(folder: Path, rows: pd.DataFrame) -> tuple[Examples, Collator, np.ndarray]:
    """The examples, their collator, and the numbers of the test rows."""
    data = read_examples(write_examples(folder, rows=rows))
    schema = data.schema
    train = data.columns.of(np.flatnonzero(data.part == TRAIN))
    transforms = fit_transforms(train, numeric=schema.numeric, categorical=schema.categorical, bins=8)
    return data, Collator(data, transforms), np.flatnonzero(data.part == TEST)


def test_popularity_is_by_past_outcomes_where_there_are_no_events(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["item_popularity"] = 0.0
    rows["label"] = (np.arange(len(rows)) % 8 > 4).astype(np.float32)  # of the last three of eight items
    data, _, test = collated(tmp_path, rows)
    found = baselines.popularity(data, test, 0)
    assert found is not None and auc(data.labels[test], found) == 1.0


def test_popularity_that_is_a_constant_is_not_used(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["item_popularity"] = np.nan
    rows["item_id"] = rows["exposure_id"]  # each item was shown once
    data, _, test = collated(tmp_path, rows)
    assert baselines.popularity(data, test, 0) is None


def test_past_outcomes_are_those_before_the_test_part_by_weight(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["weight"] = np.where(rows["item_id"] == "i3", 1000.0, 1.0)
    rows["label"] = np.where(rows["event_timestamp"] < "2020-01-09", 0.25, 1.0)
    data, _, test = collated(tmp_path, rows)
    assert baselines.base_rate(data) == pytest.approx(0.25)
    assert baselines.past_outcomes(data, test) == pytest.approx(np.full(len(test), 0.25))


@pytest.mark.parametrize("name", ["logistic_regression", "boosted_trees"])
@pytest.mark.parametrize("most", [None, 600])
def test_fitted_baselines_are_good_and_calibrated_from_samples_too(
    name: str, most: int | None, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most:
        monkeypatch.setattr(baselines, "TREE_CELLS", most * 6)
        monkeypatch.setattr(baselines, "REGRESSION_ROWS", most)
    data, collator, test = collated(tmp_path, rows)
    found = getattr(baselines, name)(data, collator, test, seed=0)
    label = data.labels[test]
    area = auc(label, found)
    assert area is not None and area > 0.85
    assert log_loss(label, found) < log_loss(label, np.full(len(test), baselines.base_rate(data)))
    assert found.mean() == pytest.approx(label.mean(), abs=0.05)


@pytest.mark.parametrize("name", ["logistic_regression", "boosted_trees"])
def test_categories_are_taken_as_such(name: str, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["item_kind"] = rows["item_id"]
    rows["label"] = np.isin(rows["item_id"], ["i1", "i4", "i6"]).astype(
        np.float32
    )  # not in order of frequency
    for column in ("user_events", "item_popularity", "cross_visits", "context_hour"):
        rows[column] = 1.0
    data, collator, test = collated(tmp_path, rows)
    found = getattr(baselines, name)(data, collator, test, seed=0)
    assert auc(data.labels[test], found) == 1.0


def test_soft_labels_with_weights_are_fitted_as_their_impressions(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["weight"] = 50.0
    rows["label"] = (0.1 + 0.04 * rows["item_id"].str[1:].astype(int)).astype(np.float32)
    rows["item_kind"] = rows["item_id"]
    data, collator, test = collated(tmp_path, rows)
    label = data.labels[test]
    for name in ("logistic_regression", "boosted_trees"):
        found = getattr(baselines, name)(data, collator, test, seed=0)
        assert np.abs(found - label).max() < 0.05, name


def test_drawn_rows_count_for_those_that_were_not(rows: pd.DataFrame, tmp_path: Path) -> None:
    data, _, _ = collated(tmp_path, rows)
    before = baselines.before_test(data)
    drawn, weights = baselines.drawn_rows(data, before, 300, seed=0)
    positive = data.labels[drawn] > 0
    assert len(drawn) == 300 and positive.sum() == 150 and (np.diff(drawn) > 0).all()
    assert weights[positive].sum() == pytest.approx((data.labels[before] > 0).sum())
    assert weights.sum() == pytest.approx(len(before))
    assert (baselines.drawn_rows(data, before, len(before), seed=0)[1] == 1).all()
