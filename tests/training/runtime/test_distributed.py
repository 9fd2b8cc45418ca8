"""Two processes train one model: the figures of one process, and a clear end where one of them is gone."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from tests.training.synthetic import write_examples
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.inference.predictor import Predictor
from training.runtime import distributed
from training.runtime.checkpoint import FILE

ROOT = Path(__file__).parents[3]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(name="setting", scope="module")
def _setting(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Examples, and a recipe without dropout, which differs from rank to rank; stages enough to be killed in."""
    folder = tmp_path_factory.mktemp("setting")
    encoder = Path(shutil.copytree(recipe.encoder.name, folder / "encoder"))
    config = json.loads((encoder / "config.json").read_text())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (encoder / "config.json").write_text(json.dumps({**config, **off}))
    no = {"dropout": 0.0}
    quiet = recipe.updated(
        encoder={"name": str(encoder)}, tabular_model=no, text_model=no, calibration={"enabled": False}
    )
    lines = [f"{name} = {json.dumps(value)}" for name, value in quiet.flat().items()]
    (folder / "recipe.toml").write_text("\n".join(lines), encoding="utf-8")
    return write_examples(folder / "examples"), folder / "recipe.toml"


def fit_command(setting: tuple[Path, Path], folder: Path) -> list[str]:
    examples, recipe = setting
    return ["-m", "training", "fit", "--quiet", "--examples", str(examples), "--recipe", str(recipe),
            "--out", str(folder)]  # fmt: skip


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index("{") :])


def flat(values: Any, name: str = "") -> dict[str, Any]:
    """Numbers of nested dictionaries and lists by their path."""
    if not isinstance(values, dict | list):
        return {name: values}
    inside = values.items() if isinstance(values, dict) else enumerate(values)
    return {key: value for place, one in inside for key, value in flat(one, f"{name}/{place}").items()}


def assert_same_metrics(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Sums of another order move a logit in its last digits; metrics of an order move by whole rows where two
    logits are almost equal."""
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        ranking = re.search("auc|average_precision|ndcg|hit_rate", name)
        assert found[name] == pytest.approx(value, abs=2e-2 if ranking else 3e-3), name


@pytest.fixture(name="alone", scope="module")
def _alone(setting: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(sys.executable, *fit_command(setting, tmp_path_factory.mktemp("alone")))


@pytest.mark.slow
def test_two_processes_find_what_one_does(
    setting: tuple[Path, Path], alone: dict[str, Any], tmp_path: Path
) -> None:
    both = run(*TORCHRUN, *fit_command(setting, tmp_path))
    assert_same_metrics(both["metrics"], alone["metrics"])
    bundles = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert [path.name for path in bundles] == [both["hash"]]
    assert not (tmp_path / ".training" / FILE).exists()
    # Not the weights: those that centring takes off again are moved by rounding alone.
    data = read_examples(setting[0])
    ours, theirs = (Predictor.load(Path(made["bundle"])).score_examples(data) for made in (both, alone))
    np.testing.assert_allclose(ours.text_logit, theirs.text_logit, atol=1e-4)
    np.testing.assert_allclose(ours.tabular_logit, theirs.tabular_logit, atol=1e-4)


@pytest.mark.slow
def test_after_one_process_was_killed_the_next_run_goes_on(
    setting: tuple[Path, Path], alone: dict[str, Any], tmp_path: Path
) -> None:
    command = [*TORCHRUN, *fit_command(setting, tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        _wait_for(tmp_path / ".training" / FILE, started)
        ranks_of = {child.environ().get("RANK"): child for child in psutil.Process(started.pid).children()}
        ranks_of["1"].send_signal(signal.SIGKILL)
        assert started.wait(timeout=60) != 0
    assert (tmp_path / ".training" / FILE).exists()
    again = run(*TORCHRUN, *fit_command(setting, tmp_path))
    assert_same_metrics(again["metrics"], alone["metrics"])


@pytest.mark.slow
def test_a_process_whose_partner_is_gone_says_so(setting: tuple[Path, Path], tmp_path: Path) -> None:
    """Without torchrun, which ends the others itself."""
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, *fit_command(setting, tmp_path)],
            cwd=ROOT,
            env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    _wait_for(tmp_path / ".training" / FILE, both[0])
    both[1].kill()
    _, said = both[0].communicate(timeout=60)
    both[1].communicate()
    assert both[0].returncode == 1
    assert "TransientError: another process of this run has ended" in said and "--work" in said


def _wait_for(path: Path, process: "subprocess.Popen[Any]") -> None:
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_shards_are_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, items = np.arange(11), list("abcde")
    assert distributed.shard(rows).tolist() == rows.tolist()
    assert list(distributed.interleaved_shard(items)) == items
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shards, interleaved = [], []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shards.append(distributed.shard(rows))
        interleaved += distributed.interleaved_shard(items)
    assert [len(shard) for shard in shards] == [4, 4, 3]
    assert np.concatenate(shards).tolist() == rows.tolist() and sorted(interleaved) == items


def _gradients(rank: int, port: int, results: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with distributed.process_group():
        both, one, none = (nn.Parameter(torch.ones(2)) for _ in range(3))
        both.grad = torch.full((2,), 1.0 + rank)
        if rank == 1:
            one.grad = torch.full((2,), 5.0)
        loss = distributed.all_reduce_gradients([both, one, none], 0.5 * rank)
        table = torch.zeros(4, 2)
        table[rank] = rank + 1.0
        distributed.all_reduce_rows(table, torch.tensor([0, 1]))
        distributed.broadcast([both])
        results.put(
            (rank, loss, both.grad.tolist(), one.grad.tolist(), none.grad, table[:2, 0].tolist(),
             distributed.broadcast_object(lambda: f"rank {rank}"), distributed.all_reduce(np.arange(2.0)).tolist(),
             distributed.gathered(f"{part} by {rank}" for part in distributed.interleaved_shard("abc")))
        )  # fmt: skip


@pytest.mark.slow
def test_gradients_are_summed_and_an_unused_parameter_stays_without() -> None:
    port = free_port()
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    started = [context.Process(target=_gradients, args=(rank, port, results)) for rank in range(2)]
    for process in started:
        process.start()
    found = sorted(results.get(timeout=60) for _ in started)
    for process in started:
        process.join(timeout=60)
    gathered = ["a by 0", "b by 1", "c by 0"]
    for rank, (_, *rest) in enumerate(found):
        assert rest == [0.5, [3.0, 3.0], [5.0, 5.0], None, [1.0, 2.0], "rank 0", [0.0, 2.0], gathered], rank
