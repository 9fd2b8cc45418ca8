"""Bad input that examples and machines bring: odd numbers, columns gone or moved, no room on disk or in memory."""

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from expectations.contracts.examples import INTERACTION_HISTORIES, ROWS
from expectations.errors import DataError, RecommenderError, SchemaError, SettingError, TransientError
from tests.training.fits import run
from tests.training.scripts import run_script
from tests.training.synthetic import make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.data.disk_arrays import DiskArray
from training.pipeline.context import FitContext
from training.pipeline.supervised import finetuning_phase
from training.pipeline.trainer import training_step
from training.runtime.checkpoint import FILE, Checkpoints, TrainingState

ROOT = Path(__file__).parents[3]


def rows() -> pd.DataFrame:
    return make_rows(np.random.default_rng(0), 24, 12)


# numbers


def test_infinite_features_are_unknown_ones_and_a_warning_counts_them(tmp_path: Path) -> None:
    odd = rows()
    odd.loc[:4, "item_popularity"] = np.inf
    odd.loc[5:6, "item_popularity"] = -np.inf
    odd.loc[3:9, "cross_visits"] = np.nan
    odd.loc[0, "context_hour"] = np.inf
    expected = r"infinite values count as unknown in item_popularity \(7 rows\), context_hour \(1 rows\)"
    with pytest.warns(UserWarning, match=expected):
        data = read_examples(write_examples(tmp_path, rows=odd))
    assert data.rows["item_popularity"].isna().to_numpy().nonzero()[0].tolist() == list(range(7))
    assert np.isnan(data.rows["cross_visits"].to_numpy()[3:10]).all()


def test_numbers_beyond_float32_are_infinite(tmp_path: Path) -> None:
    folder = write_examples(tmp_path)
    _rewrite(folder / ROWS, lambda table: _with(table, "user_events", pa.array([1e300] * table.num_rows)))
    with pytest.warns(UserWarning, match="user_events"):
        assert np.isnan(read_examples(folder).columns.numeric_features(np.arange(3))[:, 0]).all()


# columns


def test_columns_in_another_order_give_the_same_model(examples: Path, short: Recipe, tmp_path: Path) -> None:
    reversed_columns = write_examples(tmp_path / "reversed_columns")
    _rewrite(reversed_columns / ROWS, lambda table: table.select(table.column_names[::-1]))
    ours, theirs = run(reversed_columns, short, tmp_path / "a"), run(examples, short, tmp_path / "b")
    assert ours.history == theirs.history and ours.metrics == theirs.metrics


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("column", "values", "error", "expected"),
    [
        ("cross_visits", [], SchemaError, "column cross_visits is missing"),
        ("context_channel", [], SchemaError, "column context_channel is missing"),
        ("history_id", [], SchemaError, "column history_id is missing"),
        ("cross_visits", ["many"], SchemaError, "cross_visits holds string that cannot be read as float"),
        ("label", [None, 2, 1], DataError, "2 rows have a label that is not between 0 and 1"),
        ("text_id", [None, 99, 0], DataError, "2 rows have a text_id outside"),
        ("event_timestamp", [datetime(2020, 1, 2)], DataError, "no validation part"),
    ],
)
def test_rows_that_do_not_fit_their_schema_are_refused(
    column: str, values: list[Any], error: type[RecommenderError], expected: str, tmp_path: Path
) -> None:
    """Without the column where there are no values; else with these, the last of them in all other rows."""

    def change(table: pa.Table) -> pa.Table:
        if not values:
            return table.drop_columns([column])
        return _with(table, column, pa.array(values + values[-1:] * (len(table) - len(values))))

    folder = write_examples(tmp_path)
    _rewrite(folder / ROWS, change)
    with pytest.raises(error, match=expected):
        read_examples(folder)


def test_histories_that_do_not_fit_their_schema_are_refused(tmp_path: Path) -> None:
    folder = write_examples(tmp_path)
    table = pq.read_table(folder / INTERACTION_HISTORIES)
    for name in ("amounts", "sentiments"):
        pq.write_table(table.drop_columns([name]), folder / INTERACTION_HISTORIES)
        with pytest.raises(SchemaError, match=f"column {name} is missing; build the examples again"):
            read_examples(folder)
    longer = pa.array([[1.0] * 5] * len(table), pa.list_(pa.float32()))
    pq.write_table(_with(table, "events", longer), folder / INTERACTION_HISTORIES)
    with pytest.raises(DataError, match="events and text_ids differ in length"):
        read_examples(folder)
    beyond = pa.array([[99]] * len(table), pa.list_(pa.int32()))
    pq.write_table(_with(table, "text_ids", beyond), folder / INTERACTION_HISTORIES)
    with pytest.raises(DataError, match="text_ids outside 0"):
        read_examples(folder)


def test_unreadable_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="schema"):
        read_examples(tmp_path / "nowhere")
    folder = write_examples(tmp_path / "examples")
    _rewrite(folder / ROWS, lambda table: table.slice(0, 0))
    with pytest.raises(DataError, match="no rows"):
        read_examples(folder)
    (folder / ROWS).write_bytes(b"PAR1 not really")
    with pytest.raises(SchemaError, match=ROWS):
        read_examples(folder)
    (folder / ROWS).unlink()
    with pytest.raises(SchemaError, match="does not exist"):
        read_examples(folder)


@pytest.mark.parametrize(
    ("days", "label", "expected"),
    [((1, 6), 0, "train part, 0 are"), ((7, 12), 0, "validation part, 0 are"), ((1, 12), 1, "both labels")],
)
def test_one_class_only_is_refused_before_anything_is_learned(
    days: tuple[int, int], label: int, expected: str, short: Recipe, tmp_path: Path
) -> None:
    odd = rows()
    odd.loc[odd["event_timestamp"].dt.day.between(*days), "label"] = label
    with pytest.raises(DataError, match=expected):
        run(write_examples(tmp_path / "examples", rows=odd), short, tmp_path)
    assert not (tmp_path / "work" / FILE).exists() and not (tmp_path / "out").exists()


# a full disk


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_checkpoint_that_finds_no_room_leaves_the_former_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "key")
    checkpoints.save({"x": torch.ones(1000)}, TrainingState(phase="tabular", epoch=1))
    with room_for(100_000), pytest.raises(TransientError, match=f"{tmp_path / FILE}.*free disk space"):
        checkpoints.save({"x": torch.ones(1_000_000)}, TrainingState(phase="tabular", epoch=2))
    tensors, state = checkpoints.load() or ({}, None)
    assert state is not None and state.epoch == 1 and tensors["x"].sum() == 1000
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_columns_that_find_no_room_are_a_transient_error(tmp_path: Path) -> None:
    array = DiskArray(tmp_path, np.float32)
    with room_for(10_000), pytest.raises(TransientError, match=f"{tmp_path}.*free disk space"):
        array.append(np.zeros(100_000))


@pytest.mark.slow
@pytest.mark.parametrize("left", [20, 250, 400])
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_is_full_ends_a_fit_that_goes_on_when_there_is_room(
    left: int, examples: Path, short: Recipe, tmp_path: Path
) -> None:
    """At the examples' columns, at the first checkpoint, at a later one (KiB left)."""
    work = tmp_path / "work"
    work.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(work)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        (work / "others").write_bytes(b"x" * (1024 - left) * 1024)
        with pytest.raises(TransientError, match=f"{work}.*free disk space"):
            run(examples, short, tmp_path)
        subprocess.run(["mount", "-o", "remount,size=64m", str(work)], check=True)
        assert run(examples, short, tmp_path).bundle.is_dir()
    finally:
        subprocess.run(["umount", str(work)], check=True)


# out of memory


def gradient(most: int, expected: str, rows_at_once: dict[str, int]) -> tuple[torch.Tensor, float, list[int]]:
    """A step's gradient, loss and parts where more rows than `most` do not fit into memory, as `expected` says."""
    torch.manual_seed(0)
    model, sizes, values = nn.Linear(4, 1), [], torch.randn(100, 4)

    def loss(chosen: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        sizes.append(len(chosen))
        if len(chosen) > most:
            raise MemoryError(expected) if expected == "numpy" else RuntimeError(expected)
        return ((model(values[chosen]) - rng.normal()) ** 2).mean()

    phase: Any = SimpleNamespace(name="narrow", loss=loss, before_step=lambda *_: None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rng = np.random.default_rng(0)
    value, _ = training_step(phase, optimizer, np.arange(37), rng, clip_norm=1e9, at_once=rows_at_once)
    assert model.weight.grad is not None
    return model.weight.grad.clone(), value, sizes


@pytest.mark.parametrize(
    "expected",
    ["[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", "not enough memory",
     "CUDA out of memory", "numpy"],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_halved_until_it_does(expected: str) -> None:
    whole, loss, _ = gradient(1000, expected, {})
    remembered: dict[str, int] = {}
    with pytest.warns(UserWarning) as said:
        halved, same_loss, sizes = gradient(10, expected, remembered)
    ours = [str(warning.message) for warning in said if warning.category is UserWarning]
    assert "rows of phase narrow: 37 at once do not fit into memory; going on with 18 at once" in ours[0]
    assert "going on with 9 at once" in ours[1] and len(ours) == 2
    torch.testing.assert_close(halved, whole)
    assert same_loss == pytest.approx(loss)
    assert sizes == [37, 13, 8, 8, 7, 7, 7]  # whole, the first of three parts, five parts
    assert remembered == {"rows of phase narrow": 9}
    _, _, sizes = gradient(10, expected, remembered)  # and more is not tried again
    assert sizes == [8, 8, 7, 7, 7]


def test_a_row_that_does_not_fit_alone_is_an_error_that_says_what_to_lower() -> None:
    with (
        pytest.warns(UserWarning),
        pytest.raises(SettingError, match=r"narrow: one alone .* lower max_tokens"),
    ):
        gradient(0, "not enough memory", {})


def test_another_error_is_not_taken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        gradient(10, "mat1 and mat2 shapes cannot be multiplied", {})


def test_finetuning_in_parts_has_the_gradient_of_the_whole(recipe: Recipe, examples: Path) -> None:
    """Also the language model's: each part reads those of the step's texts that it holds."""
    context = FitContext(
        read_examples(examples), recipe.updated(tabular_model={"dropout": 0.0}, text_model={"dropout": 0.0})
    )
    nn.init.normal_(context.model.text_model.out.weight)
    phase = finetuning_phase(context, "finetuning", context.train, epochs=1, validate=False)
    parameters = [value for group in phase.groups for value in group["params"]]
    found = []
    for most in (10_000, 20):
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        rng = np.random.default_rng(3)
        batch = max(phase.batches(np.random.default_rng(1)), key=len)
        training_step(phase, optimizer, batch, rng, clip_norm=1e9, at_once={"rows of phase finetuning": most})
        found.append([None if value.grad is None else value.grad.clone() for value in parameters])
    assert any(
        value.grad is not None and value.grad.abs().sum() > 0 for value in context.encoder.parameters()
    )
    for whole, parts in zip(*found, strict=True):
        assert (whole is None) == (parts is None)
        if whole is not None and parts is not None:
            torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-3)


SCARCE = """
import json, resource, sys, warnings
from dataclasses import replace
from pathlib import Path
from training.data.dataset import read_examples
from training.pipeline.fit import fit
from training.config.recipe import recipe_from
values, examples, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
import torch, torch.utils.tensorboard
from training.pipeline import trainer
real = trainer.training_step
def limited(*arguments, **named):
    # Room for what is there and a little more: less than a batch needs in these wide networks.
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (used + (192 << 20), resource.RLIM_INFINITY))
    return real(*arguments, **named)

trainer.training_step = limited
fit(examples, recipe_from(values, where="test"), out=folder / "out", work=folder, log_dir=folder / "tb", progress=False)
"""


@pytest.mark.slow
def test_a_fit_in_too_little_memory_says_so_and_ends_well(short: Recipe, tmp_path: Path) -> None:
    sizes = {"batch_size": 100_000, "ensemble_size": 16, "hidden_size": 512, "negatives_per_positive": 1e9}
    wide = short.updated(tabular_model=sizes, finetuning={"epochs": 0}, encoder={"trainable_layers": 0})
    folder = write_examples(tmp_path / "examples", num_users=60, num_days=12)
    done = run_script(SCARCE, json.dumps(wide.as_dict()), folder, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rows of phase tabular: " in done.stderr and "do not fit into memory; going on with" in done.stderr
