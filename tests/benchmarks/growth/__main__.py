"""Growth with the number of exposures: time should be near linear in it, memory nearly flat."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from expectations.contracts.examples import ROWS
from tests.benchmarks.growth.examples import GROUP_SIZE, write
from tests.benchmarks.harness import Facts, run
from tests.training.synthetic import write_encoder

MIB = 2**20
SIZES = (100_000, 1_000_000, 10_000_000)
RECIPE = {
    "pretraining.next_interaction_epochs": 0,
    "tabular_model.epochs": 1,
    "finetuning.epochs": 1,
    "encoder.trainable_layers": 1,
    "encoder.max_tokens": 24,
    "early_stopping.refit": False,
    "finetuning.max_rows_per_step": 4096,  # what a step holds is the recipe's choice, and the same for all sizes
}


def measure(options: argparse.Namespace) -> Facts:
    """One fit of each size."""
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        return {"runs": [measured(Path(folder), size) for size in options.sizes]}


def measured(folder: Path, size: int) -> Facts:
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
    with (folder / "output").open("w+") as output:
        child = subprocess.Popen(
            [*command, "--examples", str(examples), "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        peak, own_peak = _watched(child)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if child.returncode:
        raise SystemExit(text)
    facts = json.loads(text[text.index("{") :])
    return {
        "exposures": size,
        "histories": size // GROUP_SIZE,
        "rows_parquet_mib": round((examples / ROWS).stat().st_size / MIB),
        "seconds": round(seconds, 1),
        "phase_seconds": facts["seconds"],
        "rows_per_second": round(size / seconds),
        "peak_memory_mib": round(peak / MIB),
        "peak_own_memory_mib": round(own_peak / MIB),
        "auc": facts["metrics"]["auc"],
    }


def _watched(child: "subprocess.Popen[str]") -> tuple[int, int]:
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


if __name__ == "__main__":
    more = {"--sizes": {"type": int, "nargs": "+", "default": SIZES, "help": "numbers of exposures"}}
    sys.exit(run("growth", measure, __doc__, more=more))
