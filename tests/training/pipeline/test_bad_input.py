"""Bad input that examples and machines bring: odd numbers, columns gone or moved, no room on disk or in memory."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from expectations.contracts.examples import INTERACTION_HISTORIES, ROWS
from expectations.errors import DataError, RecommenderError, SchemaError, SettingError, TransientError
from tests.training.synthetic import make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.data.disk_arrays import DiskArray
from training.pipeline.context import FitContext
from training.pipeline.fit import FitResult, fit
from training.pipeline.trainer import Phase, training_step
from training.runtime.checkpoint import FILE, Checkpoints

ROOT = Path(__file__).parents[3]


def run(examples: Path, recipe: Recipe, folder: Path) -> FitResult:
    return fit(
        examples, recipe, out=folder / "out", work=folder / "work", log_dir=folder / "tb", progress=False
    )


@pytest.fixture(name="short", scope="module")
def _short(recipe: Recipe) -> Recipe:
    return recipe.updated(
        early_stopping={"refit": False},
        finetuning={"epochs": 1},
        tabular_model={"epochs": 1},
        pretraining={"next_interaction_epochs": 0},
    )


def rows() -> pd.DataFrame:
    return make_rows(np.random.default_rng(0), 24, 12)


# numbers


def test_infinite_features_are_unknown_ones_and_a_warning_counts_them(tmp_path: Path) -> None:
    odd = rows()
    odd.loc[:4, "item_popularity"] = np.inf
    odd.loc[5:6, "item_popularity"] = -np.inf
    odd.loc[3:9, "cross_visits"] = np.nan
    odd.loc[0, "context_hour"] = np.inf
    words = r"infinite values count as unknown in item_popularity \(7 rows\), context_hour \(1 rows\)"
    with pytest.warns(UserWarning, match=words):
        data = read_examples(write_examples(tmp_path, rows=odd))
    assert data.rows["item_popularity"].isna().to_numpy().nonzero()[0].tolist() == list(range(7))
    assert np.isnan(data.rows["cross_visits"].to_numpy()[3:10]).all()


def test_numbers_beyond_float32_are_infinite(tmp_path: Path) -> None:
    folder = write_examples(tmp_path)
    _rewrite(folder / ROWS, lambda table: _with(table, "user_events", pa.array([1e300] * table.num_rows)))
    with pytest.warns(UserWarning, match="user_events"):
        assert np.isnan(read_examples(folder).columns.numeric_features(np.arange(3))[:, 0]).all()


def test_a_feature_that_is_never_known_teaches_nothing(short: Recipe, tmp_path: Path) -> None:
    odd = rows().assign(cross_visits=np.float32("nan"), item_kind=None)
    result = run(write_examples(tmp_path / "examples", rows=odd), short, tmp_path)
    assert np.isfinite(result.metrics["log_loss"])


# columns


def test_columns_in_another_order_give_the_same_model(examples: Path, short: Recipe, tmp_path: Path) -> None:
    turned = write_examples(tmp_path / "turned")
    _rewrite(turned / ROWS, lambda table: table.select(table.column_names[::-1]))
    ours, theirs = run(turned, short, tmp_path / "a"), run(examples, short, tmp_path / "b")
    assert ours.history == theirs.history and ours.metrics == theirs.metrics


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.drop_columns(["cross_visits"]), SchemaError, "column cross_visits is missing"),
        (lambda t: t.drop_columns(["context_channel"]), SchemaError, "column context_channel is missing"),
        (lambda t: t.drop_columns(["history_id"]), SchemaError, "column history_id is missing"),
        (
            lambda t: _with(t, "cross_visits", pa.array(["many"] * len(t))),
            SchemaError,
            "column cross_visits holds string that cannot be read as float",
        ),
        (
            lambda t: _with(t, "label", pa.array([0.5] * len(t))),
            SchemaError,
            "column label holds double that cannot be read as int8",
        ),
        (
            lambda t: _with(t, "label", pa.array([None, *[1] * (len(t) - 1)], pa.int8())),
            DataError,
            "1 rows have a label that is neither 0 nor 1",
        ),
        (
            lambda t: _with(t, "text_id", pa.array([None, *[0] * (len(t) - 1)], pa.int32())),
            DataError,
            "1 rows have a text_id outside",
        ),
        (lambda t: t.slice(0, 0), DataError, "no rows"),
    ],
)
def test_rows_that_do_not_fit_their_schema_are_refused(
    change: Callable[[pa.Table], pa.Table], error: type[RecommenderError], words: str, tmp_path: Path
) -> None:
    folder = write_examples(tmp_path)
    _rewrite(folder / ROWS, change)
    with pytest.raises(error, match=words):
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


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_is_refused_before_anything_is_learned(
    label: int, short: Recipe, tmp_path: Path
) -> None:
    folder = write_examples(tmp_path / "examples", rows=rows().assign(label=np.int8(label)))
    with pytest.raises(DataError, match="a model learns from both labels"):
        run(folder, short, tmp_path)
    assert not (tmp_path / "work" / FILE).exists() and not (tmp_path / "out").exists()


# a full disk

WRITE = """
import resource, sys, torch
from pathlib import Path
from training.runtime.checkpoint import Checkpoints, TrainingState
checkpoints = Checkpoints(Path(sys.argv[1]), "key")
checkpoints.save({"x": torch.ones(1000)}, TrainingState(phase="tabular", epoch=1))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpoints.save({"x": torch.ones(1_000_000)}, TrainingState(phase="tabular", epoch=2))
"""


def test_a_checkpoint_that_finds_no_room_leaves_the_former_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stderr.splitlines()[-1]
    assert "TransientError" in said and str(tmp_path / FILE) in said and "free disk space" in said
    tensors, progress = Checkpoints(tmp_path, "key").load() or ({}, None)
    assert progress is not None and progress.epoch == 1 and tensors["x"].sum() == 1000
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def logged(examples: Path, recipe: Recipe, folder: Path) -> FitResult:
    """A fit whose log lies beside its checkpoints, as it does by default."""
    work = folder / "work"
    return fit(examples, recipe, out=folder / "out", work=work, log_dir=work / "tb", progress=False)


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
            logged(examples, short, tmp_path)
        subprocess.run(["mount", "-o", "remount,size=64m", str(work)], check=True)
        assert logged(examples, short, tmp_path).bundle.is_dir()
    finally:
        subprocess.run(["umount", str(work)], check=True)


def test_columns_that_find_no_room_are_a_transient_error(tmp_path: Path) -> None:
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, former[1]))
    try:
        array = DiskArray(tmp_path, np.float32)
        with pytest.raises(TransientError, match=f"{tmp_path}.*free disk space"):
            array.append(np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


# out of memory


def narrow(most: int, words: str) -> tuple[Phase, nn.Linear, list[int]]:
    """A phase whose loss says that more rows than `most` do not fit into memory."""
    torch.manual_seed(0)
    model, sizes = nn.Linear(4, 1), []
    values = torch.randn(100, 4)

    def loss(chosen: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        sizes.append(len(chosen))
        if len(chosen) > most:
            raise MemoryError(words) if words == "numpy" else RuntimeError(words)
        return ((model(values[chosen]) - rng.normal()) ** 2).mean()

    phase = SimpleNamespace(name="narrow", loss=loss, before_step=None)
    return phase, model, sizes  # type: ignore[return-value]


def gradient(most: int, words: str, rows_at_once: dict[str, int]) -> tuple[torch.Tensor, float, list[int]]:
    phase, model, sizes = narrow(most, words)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    value, _ = training_step(
        phase, optimizer, np.arange(37), np.random.default_rng(0), clip_norm=1e9, at_once=rows_at_once
    )
    assert model.weight.grad is not None
    return model.weight.grad.clone(), value, sizes


@pytest.mark.parametrize(
    "words",
    ["[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", "not enough memory",
     "CUDA out of memory", "numpy"],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_halved_until_it_does(words: str) -> None:
    whole, loss, _ = gradient(1000, words, {})
    remembered: dict[str, int] = {}
    with pytest.warns(UserWarning) as said:
        halved, same_loss, sizes = gradient(10, words, remembered)
    ours = [str(warning.message) for warning in said if warning.category is UserWarning]
    assert "rows of phase narrow: 37 at once do not fit into memory; going on with 18 at once" in ours[0]
    assert "going on with 9 at once" in ours[1] and len(ours) == 2
    torch.testing.assert_close(halved, whole)
    assert same_loss == pytest.approx(loss)
    assert sizes == [37, 13, 8, 8, 7, 7, 7]  # whole, the first of three parts, five parts
    assert remembered == {"rows of phase narrow": 9}
    _, _, sizes = gradient(10, words, remembered)  # and more is not tried again
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
    phase = context.finetuning_phase("finetuning", context.train, epochs=1, validate=False)
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
def test_a_fit_in_too_little_memory_says_so_and_ends_well(recipe: Recipe, tmp_path: Path) -> None:
    wide = recipe.updated(
        tabular_model={
            "batch_size": 100_000,
            "ensemble_size": 16,
            "hidden_size": 512,
            "negative_sampling_rate": 1.0,
            "epochs": 1,
        },
        finetuning={"epochs": 0},
        early_stopping={"refit": False},
        pretraining={"next_interaction_epochs": 0},
        encoder={"trainable_layers": 0},
    )
    folder = write_examples(tmp_path / "examples", num_users=60, num_days=12)
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, json.dumps(wide.as_dict()), str(folder), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rows of phase tabular: " in done.stderr and "do not fit into memory; going on with" in done.stderr
