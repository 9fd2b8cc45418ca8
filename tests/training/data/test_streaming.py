"""Rows and histories on disk: what is read back is what was written, and memory does not grow with the rows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from expectations.contracts.examples import INTERACTION_HISTORIES, ROWS
from tests.benchmarks.growth import examples as growth
from tests.training.scripts import run_script
from tests.training.synthetic import make_rows, write_examples
from training.config.recipe import Recipe
from training.data import columns, interaction_history, sampling, split
from training.data.collate import Collator
from training.data.dataset import Examples, read_examples
from training.data.disk_arrays import DiskArray
from training.data.transforms import fit_transforms
from training.evaluation import validation
from training.pipeline import context as run
from training.pipeline import supervised

ROOT = Path(__file__).parents[3]


@pytest.fixture(name="data")
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examples:
    """Rows in row groups that share no border with the blocks that are read."""
    folder = write_examples(tmp_path / "examples")
    table = pq.read_table(folder / ROWS)
    pq.write_table(table, folder / ROWS, row_group_size=700)
    monkeypatch.setattr(columns, "BLOCK", 333)
    monkeypatch.setattr(interaction_history, "BLOCK", 5)
    return read_examples(folder, spool=tmp_path / "spool")


def test_columns_are_what_was_written(data: Examples) -> None:
    written = make_rows(np.random.default_rng(0), 24, 12).drop(columns="exposure_id")
    assert set(data.rows.columns) == set(written.columns)
    for name, column in data.rows.items():
        expected = written[name].astype(object).where(written[name].notna(), None)
        found = column.astype(object).where(column.notna(), None)
        assert found.tolist() == expected.tolist(), name
    chosen = np.array([1500, 3, 3, 0])
    some = data.columns.of(chosen)
    for name in written.columns:
        pd.testing.assert_series_equal(
            some[name], data.rows[name].iloc[chosen].reset_index(drop=True), check_names=False
        )


def test_a_frame_s_numbers_stay_on_disk(data: Examples) -> None:
    numeric = data.rows["cross_visits"].to_numpy()
    assert np.shares_memory(numeric, data.columns._numeric.values)
    with pytest.raises(ValueError, match="read-only"):
        numeric[0] = 1


def test_the_files_have_no_names(data: Examples, tmp_path: Path) -> None:
    assert len(data.columns) == 24 * 12 * 8 and list((tmp_path / "spool").iterdir()) == []


def test_batches_hold_what_the_transforms_make_of_the_rows(data: Examples) -> None:
    schema = data.schema
    transforms = fit_transforms(
        data.columns.of(np.arange(900)), numeric=schema.numeric, categorical=schema.categorical, bins=4
    )
    chosen = np.random.default_rng(0).permutation(len(data.columns))[:200]
    numeric, categorical = Collator(data, transforms).features(chosen)
    frame = data.rows.iloc[chosen]
    np.testing.assert_array_equal(numeric.numpy(), transforms.numeric_features(frame))
    np.testing.assert_array_equal(categorical.numpy(), transforms.categorical_features(frame))


def test_histories_are_padded_to_the_longest_that_is_asked_for(data: Examples, tmp_path: Path) -> None:
    lists = pq.read_table(tmp_path / "examples" / INTERACTION_HISTORIES).to_pydict()
    for chosen in (np.array([3, 0, 2, 3]), np.array([4]), np.arange(24), np.array([], dtype=int)):
        text_ids, features = data.interaction_histories.padded(chosen)
        longest = max((len(lists["text_ids"][at]) for at in chosen), default=0)
        assert text_ids.shape == (len(chosen), max(1, longest)) and features.shape == (*text_ids.shape, 4)
        for row, at in enumerate(chosen):
            there = text_ids[row] >= 0
            assert text_ids[row][there].tolist() == lists["text_ids"][at]
            assert features[row][there][:, 2].tolist() == lists["days_ago"][at]
            assert not features[row][~there].any()
    every = {text for texts in lists["text_ids"] for text in texts}
    assert data.interaction_histories.texts(np.arange(24)).tolist() == sorted(every)


def test_an_array_on_disk_gives_back_what_it_took(tmp_path: Path) -> None:
    array = DiskArray(tmp_path, np.int32, (2,))
    values = np.arange(20, dtype=np.int64).reshape(10, 2)
    for block in np.array_split(values, 3):
        array.append(block)
    assert array.values.tolist() == values.tolist()
    assert array.take(np.array([7, 7, 0])).tolist() == values[[7, 7, 0]].tolist()
    assert array.only(np.array([2, 1])).values.tolist() == values[[2, 1]].tolist()
    assert DiskArray(tmp_path, np.int32).values.shape == (0,)


def test_blocks_change_nothing_but_the_draw(data: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, first = data.labels, np.arange(2000)
    texts = sampling.distinct_values(data.columns, "text_id", first)
    monkeypatch.setattr(sampling, "BLOCK", 300)
    assert sampling.distinct_values(data.columns, "text_id", first).tolist() == texts.tolist()
    drawn = sampling.downsample_negatives(labels, first, 0.25, np.random.default_rng(0))
    assert len(set(drawn)) == len(drawn) and set(np.flatnonzero(labels[:2000])) <= set(drawn)
    negatives = (labels[:2000] == 0).sum()
    assert (labels[drawn] == 0).sum() == pytest.approx(negatives / 4, abs=4)


def test_transforms_of_many_rows_are_fitted_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    all_rows = np.arange(50, 1050)
    assert sampling.sampled(all_rows, 1000, 0) is all_rows
    monkeypatch.setattr(sampling, "BLOCK", 300)
    sample = sampling.sampled(all_rows, 100, 0)
    assert len(sample) == 100 and (np.diff(sample) > 0).all() and set(sample) <= set(all_rows)
    assert sampling.sampled(all_rows, 100, 0).tolist() == sample.tolist()


def test_of_many_rows_whole_query_groups_are_drawn(data: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BLOCK", 300)
    train = sampling.rows_of(data.part, split.TRAIN)
    assert train.tolist() == np.flatnonzero(data.part == split.TRAIN).tolist() and train.dtype == np.int32
    assert sampling.whole_query_groups(data.columns, train, len(train)) is train
    chosen = sampling.whole_query_groups(data.columns, train, len(train) // 2)
    groups = data.columns["query_group_id"]
    assert chosen.tolist() == train[np.isin(groups[train], groups[chosen])].tolist()
    assert len(chosen) == pytest.approx(len(train) / 2, rel=0.2)


class Table(dict[str, np.ndarray]):
    """Columns by name, some rows at a time."""

    def at(self, name: str, rows: np.ndarray) -> np.ndarray:
        return self[name][rows]


def test_query_groups_without_a_positive_are_measured_by_a_weighted_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    rows, groups = np.arange(30_000), rng.permutation(np.repeat(np.arange(1500), 20))
    labels = ((rng.random(30_000) < 0.1) & (groups % 5 == 0)).astype(np.float32)
    columns: Any = Table(label=labels, query_group_id=groups, weight=np.ones(30_000, dtype=np.float32))
    has_positive = np.isin(groups, groups[labels > 0])
    few = int(has_positive.sum())
    monkeypatch.setattr(sampling, "BLOCK", 7000)
    all_rows, once = sampling.all_positive_query_groups(columns, rows, len(rows), len(rows))
    assert (all_rows == rows).all() and (once == 1).all()
    chosen, stands_for = sampling.all_positive_query_groups(columns, rows, few, 0)
    assert set(chosen) >= set(np.flatnonzero(has_positive)) and (np.diff(chosen) > 0).all()
    assert len(chosen) == pytest.approx(2 * few, rel=0.2)
    assert stands_for.sum() == pytest.approx(len(rows), rel=1e-5)
    assert (stands_for[has_positive[chosen]] == 1).all() and (stands_for[~has_positive[chosen]] > 1).all()
    most, each_once = sampling.all_positive_query_groups(columns, rows, few // 2, 0)
    assert len(most) == pytest.approx(few / 2, rel=0.4) and (each_once == 1).all()

    logits = rng.normal(size=len(rows)).astype(np.float32) + labels
    measured = {}
    for name, least in (("sample", 0), ("all", len(rows))):
        monkeypatch.setattr(validation, "MIN_OTHER_ROWS", least)
        found = validation.ValidationMetrics(SimpleNamespace(columns=columns), rows, "log_loss")  # type: ignore[arg-type]
        measured[name] = found.compute(logits[found.rows])
    assert measured["sample"]["ndcg_at_10"] == measured["all"]["ndcg_at_10"]
    for metric, within in (("auc", 0.01), ("average_precision", 0.01), ("log_loss", 0.01)):
        assert measured["sample"][metric] == pytest.approx(measured["all"][metric], abs=within), metric


def test_a_run_of_many_rows_learns_and_is_validated_by_samples(
    data: Examples, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, most in (
        (run, "FITTED_ROWS", 400),
        (validation, "MAX_VALIDATION_ROWS", 150),
        (run, "TREE_ROWS", 200),
    ):
        monkeypatch.setattr(module, name, most)
    monkeypatch.setattr(supervised, "GROUPED_ROWS", 300)
    made = run.FitContext(data, recipe.updated(tabular_model={"boosting_models": 1}))
    groups = data.columns["query_group_id"]
    assert set(made.validation_metrics.rows) < set(made.validation)
    assert not set(groups[made.validation_metrics.rows]) & set(
        groups[np.setdiff1d(made.validation, made.validation_metrics.rows)]
    )
    phase = supervised.tabular_phase(made, "tabular", made.train, epochs=1, validate=True)
    assert phase.validate is not None and phase.validate()["auc"] is not None
    made.grow_trees(made.train, 40)
    assert made.model.trees.fitted
    found = made.model.trees(*made.collator.features(made.train)).sigmoid().mean()
    assert float(found) == pytest.approx(made.labels[made.train].mean(), rel=0.3)  # whatever share was drawn


READ = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
import numpy as np
from training.data.dataset import read_examples
from training.data.collate import Collator
from training.data.transforms import fit_transforms
data = read_examples(Path(sys.argv[1]), spool=Path(sys.argv[2]))
schema = data.schema
few = data.columns.of(np.arange(10_000))
made = Collator(data, fit_transforms(few, numeric=schema.numeric, categorical=schema.categorical, bins=8))
rng = np.random.default_rng(0)
for _ in range(30):
    made.batch(rng.integers(0, len(data.columns), 4096))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_hardly_grows_with_the_rows(tmp_path: Path) -> None:
    """Ten times the rows: some bytes of memory for each, where its columns hold a hundred."""
    peaks = []
    for size in (200_000, 2_000_000):
        folder = growth.write(tmp_path / str(size), size)
        done = run_script(READ, folder, tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert (peaks[1] - peaks[0]) / 1_800_000 < 30, peaks
