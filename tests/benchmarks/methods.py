"""How the language model may be tuned: frozen, its top layers, all of it, or an adapter; one table.

`python -m tests.benchmarks.methods` (or `make bench-methods`). Each method goes through the product's own
stages in a process of its own, on one thread, with the same rows, seeds and recipe: only what learns differs.

The task is read from words alone: what a customer says to a service agent, does it agree to something? The
turns are MultiDoGO's (CDLA-Permissive-1.0; `../shared/data/multidogo`), its split by conversation is kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    INTERACTION_HISTORY_SCHEMA,
    ROW_SCHEMA,
    ROWS,
    TEXT_SCHEMA,
    TEXTS,
    ExampleSchema,
)

DATA = Path(os.environ.get("SHARED_DATA", "../shared/data")) / "multidogo"
TURNS = "paper_splits_sentence_level.parquet"
AGREES, SHARE = "confirmation", 0.25  # the intent to be told from all others; its share of the turns drawn
DAYS = {"train": datetime(2019, 1, 1), "dev": datetime(2019, 1, 2), "test": datetime(2019, 1, 3)}
TURNS_OF = {"train": 512, "dev": 200, "test": 500}  # turns drawn from each split
PAGE, RESULTS = Path(__file__).with_suffix(".md"), Path(__file__).parent / "results" / "methods.json"
# The same for all methods: no shoppers' pasts, so f reads the candidate's words and g is one number.
COMMON: dict[str, Any] = {
    "encoder.max_tokens": 24,
    "tabular_model.epochs": 1,
    "tabular_model.ensemble_size": 1,
    "pretraining.next_interaction_epochs": 0,
    "finetuning.epochs": 3,
    "early_stopping.patience": 3,
    "finetuning.negative_sampling_rate": 1.0,
    "finetuning.texts_per_step": 32,
    "finetuning.text_model_learning_rate": 1e-2,
    "early_stopping.refit": False,
    "seed": 1,
}
READING = """With 512 turns and 48 steps no way of tuning leaves the frozen model's interval behind. Full
fine-tuning gains most; LoRA comes near it with 1.5 % of the parameters and two thirds of the memory, IA³ with
0.07 % of them. Adapters save memory more than time, as every layer is still read forwards and backwards; the top
two layers, above lower ones that are read once and kept, take a quarter of the time.

Where we lose: AdaLoRA and the top layers gain nothing yet, and the prefix is worse than no tuning: a new prefix
takes attention away from the text, and 48 steps do not win it back. Bottleneck adapters (Houlsby et al. 2019) are
not here: peft 0.21 has none that fits encoders and decoders alike."""
LAYERS, KIND = "encoder.trainable_layers", "encoder.adapter"
ENCODER, ADAPTER = "finetuning.encoder_learning_rate", "finetuning.adapter_learning_rate"
# What differs, and the learning rates to choose from by the validation part.
METHODS: dict[str, tuple[dict[str, Any], str, tuple[float, ...]]] = {
    "frozen": ({LAYERS: 0}, ENCODER, (0.0,)),
    "top 2 layers": ({LAYERS: 2}, ENCODER, (5e-5,)),
    "full": ({LAYERS: -1}, ENCODER, (5e-5,)),
    "LoRA": ({LAYERS: -1, KIND: "lora"}, ADAPTER, (1e-3, 5e-3)),
    "AdaLoRA": ({LAYERS: -1, KIND: "adalora"}, ADAPTER, (1e-3, 5e-3)),
    "prefix": ({LAYERS: -1, KIND: "prefix"}, ADAPTER, (1e-2, 5e-2)),
    "IA³": ({LAYERS: -1, KIND: "ia3"}, ADAPTER, (1e-2, 5e-2)),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One fit.

    Attributes:
        method: its name.
        rate: learning rate of what learns in the language model.
        parameters: of the language model that learn.
        epoch_seconds: of one processor, for one epoch: learning, reading all texts anew, the validation part.
        peak_mib: most memory that the process held.
        validation_ap: on the validation part.
        auc, ap: on the test part.
        auc_interval, ap_interval: in which 95 % of resampled test parts lie.
    """

    method: str
    rate: float
    parameters: int
    epoch_seconds: float
    peak_mib: float
    validation_ap: float
    auc: float
    ap: float
    auc_interval: list[float]
    ap_interval: list[float]


def write_turns(folder: Path) -> Path:
    """Some turns as an examples folder; a text occurs once, in the earliest split that has it."""
    turns = pd.read_parquet(DATA / TURNS, columns=["split", "utterance", "intent"])
    turns["utterance"] = turns["utterance"].str.strip().str.lower()
    turns["moment"] = turns["split"].map(DAYS)
    turns = turns.sort_values(["moment", "utterance"], kind="stable").drop_duplicates("utterance")
    turns["agrees"] = turns["intent"] == AGREES
    drawn = [
        own.sample(round(TURNS_OF[str(split)] * (SHARE if agrees else 1 - SHARE)), random_state=0)
        for (split, agrees), own in turns.groupby(["split", "agrees"])
    ]
    turns = pd.concat(drawn).sort_values(["moment", "utterance"])
    numbers = np.arange(len(turns))
    rows = pd.DataFrame(
        {
            "exposure_id": [str(number) for number in numbers],
            "user_id": [str(number) for number in numbers],
            "item_id": [str(number) for number in numbers],
            "scenario": "customer_service",
            "event_timestamp": turns["moment"].to_numpy(),
            "query_group_id": numbers,
            "label": turns["agrees"].to_numpy(np.int8),
            "text_id": numbers,
            "query_id": -1,
            "history_id": 0,
            "nothing": np.float32(0),
        }
    )
    schema = ROW_SCHEMA.append(pa.field("nothing", pa.float32()))
    pq.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False), folder / ROWS)
    texts = {"text_id": numbers, "text": turns["utterance"].tolist()}
    pq.write_table(pa.table(texts, schema=TEXT_SCHEMA), folder / TEXTS)
    empty: dict[str, list[Any]] = {name: [[]] for name in INTERACTION_HISTORY_SCHEMA.names}
    pq.write_table(
        pa.table({**empty, "history_id": [0]}, schema=INTERACTION_HISTORY_SCHEMA),
        folder / INTERACTION_HISTORIES,
    )
    counts = turns["split"].value_counts()
    ExampleSchema(
        source="multidogo",
        fingerprint="",
        feature_service="none",
        numeric=("nothing",),
        categorical=(),
        popularity="nothing",
        activity="nothing",
        slices=(),
        test_from=DAYS["test"],
        validation_fraction=float(counts["dev"] / (counts["train"] + counts["dev"])),
        horizon=datetime(2019, 1, 4),
    ).write(folder)
    return folder


def measure(method: str, rate: float, examples: Path) -> Measured:
    """One fit of one method in this process."""
    import torch

    from training.config.recipe import read_recipe
    from training.config.settings import nested
    from training.data.dataset import read_examples
    from training.data.split import TEST
    from training.evaluation.bootstrap import draw_weights, interval, resampled_metrics
    from training.evaluation.metrics import auc, average_precision
    from training.inference.predictor import Predictor
    from training.pipeline.corpus import EncodedCorpus
    from training.pipeline.fit import fit

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
    return Measured(
        method=method,
        rate=rate,
        parameters=sum(value.numel() for value in encoder.parameters() if value.requires_grad),
        epoch_seconds=result.seconds["words"] / sum(entry["phase"] == "words" for entry in result.history),
        peak_mib=peak,
        validation_ap=result.metrics["average_precision"],
        auc=float(auc(label, probability) or 0),
        ap=float(average_precision(label, probability) or 0),
        auc_interval=interval(draws["auc"]) or [],
        ap_interval=interval(draws["average_precision"]) or [],
    )


def peak_mib() -> float:
    """Most memory that this process has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the parent held
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def measured_apart(method: str, rate: float, examples: Path, kept: Path) -> Measured:
    """One fit of one method in a process of its own, on one thread; what is kept is not measured again."""
    path = kept / f"{method} {rate}.json"
    if not path.exists():
        command = [sys.executable, "-m", __spec__.name, "--one", method, str(rate), str(examples)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        path.write_text(done.stdout.splitlines()[-1], encoding="utf-8")
    return Measured(**json.loads(path.read_text(encoding="utf-8")))


def chosen(runs: list[Measured]) -> list[Measured]:
    """One run a method: with the rate that was best on the validation part."""
    best: dict[str, Measured] = {}
    for run in sorted(runs, key=lambda run: run.validation_ap):
        best[run.method] = run
    return [best[method] for method in METHODS if method in best]


def page(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    from tests.benchmarks.machine import described

    rows, runs = found["rows"], [Measured(**values) for values in found["runs"]]
    tried = ", ".join(f"{run.method} {run.rate:g}" for run in runs if run.rate)
    lines = [
        "# Ways to tune the language model",
        "",
        f"{described(found['machine'])}; one thread for each fit. Command: `make bench-methods`.",
        "",
        f"Does a customer's turn agree to something? {rows['train']} turns to learn from, {rows['validation']} "
        f"to choose the best of {COMMON['finetuning.epochs']} epochs and of the learning rates tried, "
        f"{rows['test']} to test on, all different; {SHARE:.0%} of them agree. all-MiniLM-L6-v2, one seed; "
        f"in brackets, where 95 % of 1,000 resampled test parts lie. Rates tried: {tried}.",
        "",
        "| method | learning rate | parameters that learn | processor seconds an epoch | peak memory, MiB "
        "| AUC | AP |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run.method} | {run.rate:g} | {run.parameters:,} | {run.epoch_seconds:.1f} | {run.peak_mib:,.0f} "
        f"| {_ranged(run.auc, run.auc_interval)} | {_ranged(run.ap, run.ap_interval)} |"
        for run in chosen(runs)
    ]
    missing = [method for method in METHODS if method not in {run.method for run in runs}]
    if missing:
        lines += ["", f"Not measured in this run: {', '.join(missing)}."]
    return "\n".join([*lines, "", READING, ""])


def _ranged(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def main(arguments: list[str] | None = None) -> None:
    """Measure all methods and write the page, or one of them for the parent process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="keep what was measured here, and go on from it")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "RATE", "EXAMPLES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        method, rate, examples = options.one
        sys.stdout.write(json.dumps(asdict(measure(method, float(rate), Path(examples)))) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        found = measured_all(work)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")
    sys.stdout.write(page(found))


def measured_all(work: Path) -> dict[str, Any]:
    """What the results file holds."""
    from tests.benchmarks.machine import machine
    from training.data.dataset import read_examples

    examples = work / "examples"
    examples.mkdir(exist_ok=True)
    part = read_examples(write_turns(examples)).part
    runs = [
        measured_apart(method, rate, examples, work)
        for method, (_, _, rates) in METHODS.items()
        for rate in rates
    ]
    return {
        "machine": machine(),
        "command": "make bench-methods",
        "rows": {name: int((part == name).sum()) for name in ("train", "validation", "test")},
        "recipe": COMMON,
        "methods": [asdict(run) for run in chosen(runs)],
        "runs": [asdict(run) for run in runs],
    }


if __name__ == "__main__":
    main()
