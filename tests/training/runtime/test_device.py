"""What differs by device. The last tests run where there is a GPU."""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tests.training.fits import run
from training.data.collate import Batch, moved
from training.data.dataset import read_examples
from training.data.sampling import rows_of
from training.data.split import TEST
from training.evaluation.evaluate import evaluate
from training.inference.predictor import Predictor
from training.runtime.device import first_device, mixed_precision, num_threads

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def test_single_precision_on_a_cpu_and_on_cards_without_bfloat16(monkeypatch):
    assert isinstance(mixed_precision("cpu"), nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert isinstance(mixed_precision("cuda"), nullcontext)


@pytest.mark.parametrize("processes", [1, 2, 10_000])
def test_threads_of_each_process(monkeypatch, processes):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    torchs, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    assert num_threads() == (torchs if processes == 1 else max(torchs, cores // processes))


def test_on_a_cpu_a_tensor_stays_where_it_is():
    tensor = torch.zeros(3)
    assert moved(tensor, "cpu") is tensor


@gpu
def test_a_fit_on_the_gpu_scores_as_on_the_cpu(fitted, examples):
    data = read_examples(examples)
    rows = data.part == TEST
    here, there = (
        Predictor.load(fitted.bundle, device).score_examples(data, rows) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there.probability, here.probability, atol=1e-4)


@gpu
def test_a_fit_on_the_gpu_learns_what_one_on_the_cpu_learns(fitted, examples, recipe, tmp_path):
    assert first_device() == "cuda"
    result = run(examples, recipe, tmp_path)
    assert result.metrics["auc"] == pytest.approx(fitted.metrics["auc"], abs=0.05)
    found = evaluate(result.bundle, examples, progress=False)
    assert found["model"]["num_exposures"] == len(rows_of(read_examples(examples).part, TEST))


@gpu
def test_pinned_batches_arrive_as_they_are():
    names = Batch.__dataclass_fields__
    batch = Batch(**{name: torch.arange(6.0).reshape(2, 3) for name in names})
    arrived = batch.pinned().to("cuda")
    for name in names:
        torch.testing.assert_close(getattr(arrived, name).cpu(), getattr(batch, name))
