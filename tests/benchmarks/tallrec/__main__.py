"""TALLRec's book data: will this reader like that book? Ours beside published results, with and without sentiment.

All lines of the table come from one run; nothing was chosen by the test split.
"""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from expectations.errors import SettingError
from expectations.storage.hashes import fingerprint
from tests.benchmarks.harness import Facts, Store, run, shared_data, training_code
from tests.benchmarks.tallrec.fits import Readers, Setting, draws
from tests.benchmarks.tallrec.shop import build
from training.config.recipe import read_recipe
from training.evaluation.bootstrap import interval
from training.evaluation.metrics import auc

RATE = "rate of liked books in the history, no model"
SHOTS, DRAWS = (16, 64, 256), 5
SEEDS = (7,)
RESAMPLED = 1000
OURS = Setting(name="ours: text model with sentiment, and the rate")
SETTINGS = (
    Setting(name="text model, without sentiment", sentiment=False, rate=False),
    Setting(name="text model with sentiment, without the rate", rate=False),
    Setting(name="the rate alone, in the tabular model (no text model)", text_model=False),
    Setting(name="ours, books of a history not asked about again", asked_again=False),
    OURS,
)


def measure(options: argparse.Namespace) -> Facts:
    """Every line of the tables."""
    if not (options.data / "valid_json.parquet").exists():
        raise SettingError(f"{options.data} has no valid_json.parquet; name the folder: --data")
    readers = Readers(build(options.data, options.work), read_recipe(Path(__file__).with_name("recipe.toml")))
    fits = Fits(readers, options.work)
    rate, label = readers.test_rows()
    full = {setting.name: [fits.on_all(setting, seed) for seed in SEEDS] for setting in SETTINGS}
    few = {
        str(size): [
            fits.scores(OURS, known, seed) for seed, known in enumerate(draws(readers.num_known, size, DRAWS))
        ]
        for size in SHOTS
    }
    return {
        "seconds": round(fits.seconds),
        "num_test": len(label),
        "full": {name: _metrics(label, scores, rate) for name, scores in {RATE: [rate], **full}.items()},
        "few": {size: _spread([_auc(label, scores) for scores in of]) for size, of in few.items()},
    }


class Fits:
    """Logits of the test split after fits on readers of the valid split, each fitted once.

    Args:
        readers: of the data.
        work: a folder for fits and their records.

    Attributes:
        seconds: how long all of them took, those of earlier runs too.
    """

    def __init__(self, readers: Readers, work: Path) -> None:
        self.readers, self.work, self.seconds = readers, work, 0.0
        self.store = Store(work / "fits")

    def on_all(self, setting: Setting, seed: int) -> np.ndarray:
        """After a fit on all readers."""
        known = np.random.default_rng(seed).permutation(self.readers.num_known)
        return self.scores(setting, known, seed)

    def scores(self, setting: Setting, known: np.ndarray, seed: int) -> np.ndarray:
        """After a fit on some readers."""
        readers, name = self.readers, f"{len(known)}-readers-{seed}"
        key = fingerprint(
            readers.folder.name, readers.recipe.as_dict(), asdict(setting), known.tolist(), training_code()
        )

        def make() -> Facts:
            start = time.perf_counter()
            scores = readers.fit(setting, known, self.work / f"{name}-{key}", seed=seed)
            seconds = time.perf_counter() - start
            self.store.tell(f"{setting.name}, {len(known)} readers, seed {seed}: {seconds:.0f} s")
            return {"seconds": seconds, "scores": [float(score) for score in scores]}

        record = self.store.record(name, key, make)
        self.seconds += record["seconds"]
        return np.array(record["scores"])


def _auc(label: np.ndarray, score: np.ndarray) -> float:
    return 100 * (auc(label, score) or 0.0)


def _spread(values: list[float]) -> Facts:
    return {"mean": float(np.mean(values)), "spread": float(np.std(values)), "each": values}


def _metrics(label: np.ndarray, scores: list[np.ndarray], rate: np.ndarray) -> Facts:
    """AUC x 100 of each seed, the interval of their mean, and that of its difference to the rate alone."""
    rng = np.random.default_rng(0)
    alone, mean = [], []
    for _ in range(RESAMPLED):
        drawn = rng.integers(len(label), size=len(label))
        alone.append(_auc(label[drawn], rate[drawn]))
        mean.append(float(np.mean([_auc(label[drawn], score[drawn]) for score in scores])))
    return {
        **_spread([_auc(label, score) for score in scores]),
        "interval": interval(np.array(mean)),
        "beyond_rate": interval(np.array(mean) - np.array(alone)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)  # the numbers of more threads differ in the last digits
    folder = {"type": Path, "default": shared_data("tallrec_book"), "help": "the data set's folder"}
    sys.exit(run("tallrec", measure, __doc__, more={"--data": folder}))
