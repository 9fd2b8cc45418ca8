"""How the language model may be tuned: frozen, its top layers, all of it, or an adapter; one table.

Each method goes through the product's own phases in a process of its own, on one thread, with the same rows, seeds
and recipe: only what learns differs.

The task is read from the text alone: what a customer says to a service agent, does it agree to something? The
turns are MultiDoGO's (CDLA-Permissive-1.0; `../shared/data/multidogo`), its split by conversation is kept.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from expectations.storage.hashes import fingerprint
from tests.benchmarks.harness import Facts, Store, run, training_code
from tests.benchmarks.methods.fits import COMMON, METHODS, chosen, measure, write_turns
from training.data.dataset import read_examples


def measure_all(options: argparse.Namespace) -> Facts:
    """One fit of each method and learning rate, each in a new process."""
    store = Store(options.work)
    examples = write_turns(options.work / "examples")
    part = read_examples(examples).part
    runs = [
        _apart(store, method, rate, examples) for method, (_, _, rates) in METHODS.items() for rate in rates
    ]
    return {
        "rows": {name: int((part == name).sum()) for name in ("train", "validation", "test")},
        "recipe": COMMON,
        "methods": chosen(runs),
        "runs": runs,
    }


def _apart(store: Store, method: str, rate: float, examples: Path) -> Facts:
    def in_new_process() -> Facts:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(measure, method, rate, examples).result()

    key = fingerprint(training_code(), COMMON, METHODS[method])
    return store.record(f"{method}-{rate}", key, in_new_process)


if __name__ == "__main__":
    sys.exit(run("methods", measure_all, __doc__))
