"""Growth with the number of exposures, of a fit and of the whole job: time near linear in it, memory nearly flat."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from expectations.contracts.examples import ROWS
from tests.benchmarks.growth import shop
from tests.benchmarks.growth.examples import GROUP_SIZE, write
from tests.benchmarks.harness import Facts, run, tell
from tests.benchmarks.shops.job import JobError, whole_job, write_recipe
from tests.training.synthetic import write_encoder

MIB = 2**20
MEMORY = "3GB"  # what a step's DuckDB may use: else it takes what the machine has
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
    """One fit and one whole job of each size."""
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        folder = Path(name)
        write_encoder(folder / "encoder")
        recipe = write_recipe(folder / "recipe.toml", {**RECIPE, "encoder.name": str(folder / "encoder")})
        return {
            "runs": [measured(folder, recipe, size) for size in options.sizes],
            "jobs": [job(folder, recipe, size) for size in options.job_sizes],
        }


def job(folder: Path, recipe: Path, size: int) -> Facts:
    """The whole job on a synthetic shop of one size, from its files to the gate's decision."""
    home, files = folder / f"home-{size}", folder / f"shop-{size}"
    source = shop.write(files, size)
    tell(f"a shop of {size:,} exposures …")
    try:
        found = whole_job(source, home, recipe, RECOMMENDER_MEMORY=MEMORY)
    except JobError as error:
        tell(f"{size:,} exposures: {error}")
        return {"exposures": size, "failed": str(error)}
    finally:
        shutil.rmtree(files)
    shutil.rmtree(home)
    tell(f"{size:,} exposures: {found['seconds']:.0f} s, {found['peak_mib']:,} MiB")
    return {
        "exposures": size,
        **{name: found[name] for name in ("exit_code", "seconds", "step_seconds", "peak_mib")},
        "auc": found["evaluation"]["metrics"]["model"]["auc"],
    }


def measured(folder: Path, recipe: Path, size: int) -> Facts:
    """Fit to synthetic examples of one size in a child process."""
    examples = write(folder / f"examples-{size}", size)
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
    more = {
        "--sizes": {"type": int, "nargs": "+", "default": SIZES, "help": "numbers of exposures, of fits"},
        "--job-sizes": {"type": int, "nargs": "*", "default": SIZES, "help": "… of whole jobs"},
    }
    sys.exit(run("growth", measure, __doc__, more=more))
