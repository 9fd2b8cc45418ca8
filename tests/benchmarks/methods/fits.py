"""The turns to learn from, the methods, and one fit of one of them."""

import tempfile
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from tests.benchmarks.harness import Facts, shared_data
from tests.training.synthetic import write_examples
from training.config.recipe import read_recipe
from training.config.settings import nested
from training.data.dataset import read_examples
from training.data.split import TEST
from training.evaluation.bootstrap import draw_weights, interval, resampled_metrics
from training.evaluation.metrics import auc, average_precision
from training.inference.predictor import Predictor
from training.pipeline.context import EncodedCorpus
from training.pipeline.fit import fit
from training.pipeline.phases import FINETUNING

DATA, TURNS = "multidogo", "paper_splits_sentence_level.parquet"
AGREES = "confirmation"  # the intent to be told from all others
POSITIVE_RATE = 0.25  # of it, among the turns drawn
DAYS = {"train": datetime(2019, 1, 1), "dev": datetime(2019, 1, 2), "test": datetime(2019, 1, 3)}
TURNS_OF = {"train": 512, "dev": 200, "test": 500}  # turns drawn from each split
# The same for all methods: no interaction histories, so f reads the candidate's text and g is one number.
COMMON: Facts = {
    "encoder.max_tokens": 24,
    "tabular_model.epochs": 1,
    "tabular_model.ensemble_size": 1,
    "pretraining.next_interaction_epochs": 0,
    "finetuning.epochs": 3,
    "finetuning.patience": 3,
    "finetuning.negatives_per_positive": 1e9,
    "finetuning.texts_per_step": 32,
    "finetuning.text_model_learning_rate": 1e-2,
    "early_stopping.refit": False,
    "seed": 1,
}
LAYERS, KIND = "encoder.trainable_layers", "encoder.adapter"
ENCODER, ADAPTER = "finetuning.encoder_learning_rate", "finetuning.adapter_learning_rate"
# What differs, and the learning rates to choose from by the validation part.
METHODS: dict[str, tuple[Facts, str, tuple[float, ...]]] = {
    "frozen": ({LAYERS: 0}, ENCODER, (0.0,)),
    "top 2 layers": ({LAYERS: 2}, ENCODER, (5e-5,)),
    "full": ({LAYERS: -1}, ENCODER, (5e-5,)),
    "LoRA": ({LAYERS: -1, KIND: "lora"}, ADAPTER, (1e-3, 5e-3)),
    "AdaLoRA": ({LAYERS: -1, KIND: "adalora"}, ADAPTER, (1e-3, 5e-3)),
    "prefix": ({LAYERS: -1, KIND: "prefix"}, ADAPTER, (1e-2, 5e-2)),
    "IA³": ({LAYERS: -1, KIND: "ia3"}, ADAPTER, (1e-2, 5e-2)),
}


def write_turns(folder: Path) -> Path:
    """Some turns as an examples folder; a text occurs once, in the earliest split that has it."""
    turns = pd.read_parquet(shared_data(DATA) / TURNS, columns=["split", "utterance", "intent"])
    turns["utterance"] = turns["utterance"].str.strip().str.lower()
    turns["event_timestamp"] = turns["split"].map(DAYS)
    turns = turns.sort_values(["event_timestamp", "utterance"], kind="stable").drop_duplicates("utterance")
    turns["agrees"] = turns["intent"] == AGREES
    drawn = [
        own.sample(
            round(TURNS_OF[str(split)] * (POSITIVE_RATE if agrees else 1 - POSITIVE_RATE)), random_state=0
        )
        for (split, agrees), own in turns.groupby(["split", "agrees"])
    ]
    turns = pd.concat(drawn).sort_values(["event_timestamp", "utterance"])
    numbers = np.arange(len(turns))
    rows = pd.DataFrame(
        {
            "exposure_id": numbers.astype(str),
            "user_id": numbers.astype(str),
            "item_id": numbers.astype(str),
            "scenario": "customer_service",
            "event_timestamp": turns["event_timestamp"].to_numpy(),
            "query_group_id": numbers,
            "label": turns["agrees"].to_numpy(np.float32),
            "weight": np.ones(len(turns), dtype=np.float32),
            "text_id": numbers,
            "query_id": -1,
            "history_id": 0,
            "nothing": np.float32(0),
        }
    )
    counts = turns["split"].value_counts()
    return write_examples(
        folder,
        rows=rows,
        texts=turns["utterance"].tolist(),
        num_users=1,  # one history, an empty one
        next_interactions=False,
        source="multidogo",
        numeric=("nothing",),
        categorical=(),
        popularity="nothing",
        activity="nothing",
        slices=(),
        test_from=DAYS["test"],
        validation_fraction=float(counts["dev"] / (counts["train"] + counts["dev"])),
    )


def measure(method: str, rate: float, examples: Path) -> Facts:
    """One fit of one method in this process.

    Returns:
        method; rate: learning rate of what learns in the language model; parameters: of it that learn; epoch_seconds:
        of one processor, for one epoch (learning, reading all texts anew, the validation part); peak_mib: most memory
        that the process held; validation_ap; auc and ap of the test part, and in which interval 95 % of resampled
        test parts lie.
    """
    torch.set_num_threads(1)
    settings, name, _ = METHODS[method]
    recipe = read_recipe(None).updated(**nested({**COMMON, **settings, name: rate}))
    processor = SimpleNamespace(perf_counter=time.process_time)  # the machine may be shared
    with tempfile.TemporaryDirectory() as folder, patch("training.pipeline.fit.time", processor):
        work = Path(folder)
        result = fit(
            examples, recipe, out=work / "out", work=work / "work", log_dir=work / "tb", progress=False
        )
        peak = peak_mib()
        data = read_examples(examples)
        probability = Predictor.load(result.bundle).score_examples(data).probability
    encoder = EncodedCorpus(["-"], recipe, None, "cpu").encoder
    label = data.labels[data.part == TEST]
    own = np.arange(len(label))
    draws = resampled_metrics(label, probability, own, own, draw_weights(len(label), draws=1000, seed=0))
    return {
        "method": method,
        "rate": rate,
        "parameters": sum(value.numel() for value in encoder.parameters() if value.requires_grad),
        "epoch_seconds": result.seconds[FINETUNING]
        / sum(entry["phase"] == FINETUNING for entry in result.history),
        "peak_mib": peak,
        "validation_ap": result.metrics["average_precision"],
        "auc": auc(label, probability),
        "ap": average_precision(label, probability),
        "auc_interval": interval(draws["auc"]),
        "ap_interval": interval(draws["average_precision"]),
    }


def peak_mib() -> float:
    """Most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the parent held
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def chosen(runs: list[Facts]) -> list[Facts]:
    """One run a method: with the rate that was best on the validation part."""
    best = {run["method"]: run for run in sorted(runs, key=lambda run: run["validation_ap"])}
    return [best[method] for method in METHODS if method in best]
