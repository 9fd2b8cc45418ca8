"""Growth with the number of exposures: time should be near linear in it, memory nearly flat.

For each size, synthetic examples are written by row groups and a child process fits one epoch of each stage to
them: `python -m training fit` with a light recipe (a small language model from nothing, whose upper layer learns,
no purchases, no refit, at most 4,096 rows in a step), on one thread. Lists of 40 candidates; shoppers, moments and
histories grow with the exposures, texts do not.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
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
from expectations.storage.atomic import write_json, write_text
from tests.benchmarks.machine import described, machine
from tests.training.synthetic import SUBJECTS, write_encoder

HERE = Path(__file__).parent
SIZES = (100_000, 1_000_000, 10_000_000)
LIST, ENTRIES, CANDIDATES, TOPICS = (
    40,
    12,
    400,
    800,
)  # rows of a list, entries of a history, texts of each kind
GROUP = 200_000  # rows written at once
START, DAYS = np.datetime64("2020-01-01", "us"), 100
NUMERIC = (
    "user_events",
    "item_popularity",
    "user_item_visits",
    "user_item_amount",
    "user_item_days",
    "context_hour",
)
CATEGORICAL = ("item_kind", "context_channel")
MIB = 2**20
RECIPE = {
    "pretraining.next_interaction_epochs": 0,
    "tabular_model.epochs": 1,
    "finetuning.epochs": 1,
    "encoder.trainable_layers": 1,
    "encoder.max_tokens": 24,
    "early_stopping.refit": False,
    "finetuning.max_rows_per_step": 4096,  # what a step holds is the recipe's choice, and the same for all sizes
}


def main() -> int:
    """Measure each size, then write page and figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of exposures")
    parser.add_argument(
        "--work", type=Path, help="where the data lie meanwhile (default: a temporary folder)"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="where page and figures go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        found = {"machine": machine(), "runs": [measured(Path(folder), size) for size in options.sizes]}
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    write_json(options.out / "results" / "growth.json", found)
    write_text(options.out / "growth.md", page(found))
    sys.stdout.write(page(found))
    return 0


def measured(folder: Path, size: int) -> dict[str, Any]:
    """Fit to synthetic examples of one size in a child process."""
    examples = write(folder / f"examples-{size}", size)
    encoder = folder / "encoder"
    if not encoder.exists():
        write_encoder(encoder)
    recipe = folder / "recipe.toml"
    settings = {**RECIPE, "encoder.name": str(encoder)}
    recipe.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items()))
    out = folder / f"out-{size}"
    command = [sys.executable, "-m", "training", "fit", "--quiet", "--recipe", str(recipe)]
    started = time.perf_counter()
    with (folder / "said").open("w+") as said:
        child = subprocess.Popen(
            [*command, "--examples", str(examples), "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        peak, own_peak = _watched(child)
        seconds = time.perf_counter() - started
        said.seek(0)
        text = said.read()
    if child.returncode:
        raise SystemExit(text)
    facts = json.loads(text[text.index("{") :])
    return {
        "exposures": size,
        "histories": size // LIST,
        "rows_parquet_mib": round((examples / ROWS).stat().st_size / MIB),
        "seconds": round(seconds, 1),
        "seconds_by_step": facts["seconds"],
        "rows_per_second": round(size / seconds),
        "peak_memory_mib": round(peak / MIB),
        "peak_own_memory_mib": round(own_peak / MIB),
        "auc": facts["metrics"]["auc"],
    }


def _watched(child: "subprocess.Popen[Any]") -> tuple[int, int]:
    """Wait for a child; its greatest memory, and that without pages of files (seen five times a second), bytes."""
    own = 0
    process = psutil.Process(child.pid)
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_maxrss * 1024, own
        memory = process.memory_info()
        own = max(own, memory.rss - memory.shared)
        time.sleep(0.2)


def write(folder: Path, size: int) -> Path:
    """An examples folder of so many exposures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    texts = [f"Coupon for {SUBJECTS[n % 4]}, offer {n}" for n in range(CANDIDATES)]
    texts += [f"{SUBJECTS[n % 4]} {n}" for n in range(TOPICS)]
    ids = pa.array(np.arange(len(texts)), pa.int32())
    pq.write_table(pa.table([ids, pa.array(texts)], schema=TEXT_SCHEMA), folder / TEXTS)
    num_histories = size // LIST
    with pq.ParquetWriter(folder / INTERACTION_HISTORIES, INTERACTION_HISTORY_SCHEMA) as writer:
        for first in range(0, num_histories, GROUP // LIST):
            last = min(first + GROUP // LIST, num_histories)
            writer.write_table(_histories(np.arange(first, last), rng))
    features = [(name, pa.float32()) for name in NUMERIC] + [(name, pa.string()) for name in CATEGORICAL]
    schema = pa.schema([*ROW_SCHEMA, *features])
    with pq.ParquetWriter(folder / ROWS, schema) as writer:
        for first in range(0, size, GROUP):
            writer.write_table(_rows(np.arange(first, min(first + GROUP, size)), size, rng, schema))
    ExampleSchema(
        source="growth",
        fingerprint=str(size),
        feature_service="none",
        numeric=NUMERIC,
        categorical=CATEGORICAL,
        popularity="item_popularity",
        activity="user_events",
        slices=("context_channel",),
        test_from=datetime(2020, 3, 20),
        validation_fraction=0.1,
        horizon=datetime(2020, 5, 1),
    ).write(folder)
    return folder


def _histories(history: np.ndarray, rng: np.random.Generator) -> pa.Table:
    count = len(history) * ENTRIES
    offsets = pa.array(np.arange(0, count + 1, ENTRIES), pa.int32())
    liked = CANDIDATES + 4 * rng.integers(0, TOPICS // 4, (len(history), ENTRIES)) + history[:, None] % 4
    columns = {
        "text_ids": liked.ravel().astype(np.int32),
        "events": rng.integers(1, 9, count).astype(np.float32),
        "amounts": rng.gamma(2, 10, count).astype(np.float32),
        "days_ago": rng.integers(0, 180, count).astype(np.float32),
        "sentiments": np.zeros(count, dtype=np.float32),
    }
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}
    return pa.table({"history_id": pa.array(history, pa.int32()), **lists}, schema=INTERACTION_HISTORY_SCHEMA)


def _rows(row: np.ndarray, size: int, rng: np.random.Generator, schema: pa.Schema) -> pa.Table:
    ranked, count = row // LIST, len(row)
    item = rng.integers(0, CANDIDATES, count)
    fits = item % 4 == ranked % 4
    visits = rng.poisson(np.where(fits, 2.0, 0.3)).astype(np.float32)
    chance = 1 / (1 + np.exp(5.5 - 2.0 * fits - 0.4 * visits))
    day = ranked * DAYS // (size // LIST + 1)
    named = pa.array(ranked % max(size // 400, 1)).cast(pa.string())
    columns = {
        "exposure_id": pa.array(row).cast(pa.string()),
        "user_id": named,
        "item_id": pa.array(item).cast(pa.string()),
        "scenario": pa.array(["campaign"]).take(pa.array(np.zeros(count, np.int32))),
        "event_timestamp": START + day.astype("timedelta64[D]"),
        "query_group_id": ranked,
        "label": (rng.random(count) < chance).astype(np.int8),
        "text_id": item,
        "query_id": np.full(count, -1),
        "history_id": np.minimum(ranked, size // LIST - 1),
        "user_events": rng.poisson(20, count),
        "item_popularity": item + rng.random(count),
        "user_item_visits": visits,
        "user_item_amount": visits * rng.gamma(2, 5, count),
        "user_item_days": np.where(visits > 0, rng.integers(0, 90, count), np.nan),
        "context_hour": rng.integers(0, 24, count),
        "item_kind": pa.array(["coupon", "festival"]).take(pa.array(item % 2)),
        "context_channel": pa.array(["web", "mail", None]).take(pa.array(rng.integers(0, 3, count))),
    }
    arrays = [
        pa.array(columns[field.name]).cast(field.type, safe=False)
        for field in schema  # each as the contract has it
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def page(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    runs = found["runs"]
    steps = list(runs[-1]["seconds_by_step"])
    lines = [
        "# Growth with the number of exposures",
        "",
        f"`make bench-growth`, {described(found['machine'])}.",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
        f"| exposures | rows.parquet, MiB | seconds | {', '.join(steps)} | exposures a second | peak memory, MiB | "
        "of it without pages of files | AUC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        by_step = ", ".join(f"{run['seconds_by_step'].get(name, 0):.0f}" for name in steps)
        lines.append(
            f"| {run['exposures']:,} | {run['rows_parquet_mib']:,} | {run['seconds']:,.0f} | {by_step} | "
            f"{run['rows_per_second']:,} | {run['peak_memory_mib']:,} | {run['peak_own_memory_mib']:,} | "
            f"{run['auc']:.3f} |"
        )
    return "\n".join([*lines, "", *_words(runs), ""])


def _words(runs: list[dict[str, Any]]) -> Iterator[str]:
    """What the table says, in sentences that hold whatever the figures are."""
    last = runs[-1]
    for first in runs[:-1]:
        times = {name: last[name] / first[name] for name in ("exposures", "seconds", "peak_memory_mib")}
        bytes_more = (last["peak_memory_mib"] - first["peak_memory_mib"]) * MIB
        yield (
            f"From {first['exposures']:,} exposures to {last['exposures']:,}, {times['exposures']:,.0f} times as many: "
            f"{times['seconds']:,.1f} times the time, {times['peak_memory_mib']:.2f} times the memory, "
            f"{bytes_more / (last['exposures'] - first['exposures']):.0f} bytes more for each exposure more."
        )
    yield (
        "What still grows: the part of every exposure (1 byte), the row number of those to learn from (4 bytes; a "
        "refit has it twice), twice more those of an epoch's draw, and where each history begins (8 bytes a history). "
        "Too few exposures to fill a batch need less. What is measured, lists and trees of g take samples of a "
        "fixed size. The columns themselves lie on disk, in --work, while a fit runs."
    )


if __name__ == "__main__":
    sys.exit(main())
