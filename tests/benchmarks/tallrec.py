"""TALLRec's book data: will this reader like that book? Ours beside published figures, with and without polarity.

All lines of the table come from one run; nothing was chosen by the test split. Fits are kept under --work: run it
again and it goes on.
"""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from expectations.errors import SettingError
from expectations.storage.atomic import read_json, write_json, write_text
from expectations.storage.hashes import fingerprint
from tests.benchmarks.machine import machine
from tests.benchmarks.tallrec_page import SHARE, page
from tests.benchmarks.tallrec_runs import Readers, Setting, draws
from tests.benchmarks.tallrec_shop import build
from training.config.recipe import read_recipe
from training.evaluation.bootstrap import interval
from training.evaluation.metrics import auc

HERE = Path(__file__).parent
SHOTS, DRAWS = (16, 64, 256), 5
SEEDS = (7,)
RESAMPLED = 1000
OURS = Setting(name="ours: words with polarity, and the share of liked books")
SETTINGS = (
    Setting(name="words, without polarity", sentiment=False, table=False),
    Setting(name="words with polarity, without the share", table=False),
    Setting(name="the share alone, in our model (no words)", words=False),
    Setting(name="ours, books of a history not asked about again", again=False),
    OURS,
)


def main() -> int:
    """Fit what is not fitted yet, then write page and figures."""
    options = _options()
    torch.set_num_threads(1)  # the numbers of more threads differ in the last digits
    if not (options.data / "valid_json.parquet").exists():
        raise SettingError(f"{options.data} has no valid_json.parquet; name the folder: --data")
    folder = build(options.data, options.work)
    readers = Readers(folder, read_recipe(HERE / "tallrec.toml"))
    fits = Fits(readers, options.work)
    share, label = readers.test_rows()
    full = {setting.name: [fits.on_all(setting, seed) for seed in SEEDS] for setting in SETTINGS}
    few = {
        str(size): [
            fits.scores(OURS, known, seed) for seed, known in enumerate(draws(readers.num_known, size, DRAWS))
        ]
        for size in SHOTS
    }
    figures = {
        "machine": machine(),
        "seconds": round(fits.seconds),
        "num_test": len(label),
        "full": {name: _figures(label, scores, share) for name, scores in {SHARE: [share], **full}.items()},
        "few": {size: _spread([_auc(label, scores) for scores in of]) for size, of in few.items()},
    }
    write_json(HERE / "results" / "tallrec.json", figures)
    write_text(HERE / "tallrec.md", page(figures))
    return 0


class Fits:
    """Fits, each kept in a file: what is known already is not fitted again.

    Args:
        readers: of the data.
        work: where the files lie.

    Attributes:
        seconds: how long all of them took, those of earlier runs too.
    """

    def __init__(self, readers: Readers, work: Path) -> None:
        self.readers, self.work, self.seconds = readers, work, 0.0

    def on_all(self, setting: Setting, seed: int) -> np.ndarray:
        """The test split's logits after a fit on all readers of the valid split."""
        known = np.random.default_rng(seed).permutation(self.readers.num_known)
        return self.scores(setting, known, seed)

    def scores(self, setting: Setting, known: np.ndarray, seed: int) -> np.ndarray:
        """The test split's logits after a fit on some readers of the valid split."""
        readers = self.readers
        made_from = (readers.folder.name, readers.recipe.as_dict(), asdict(setting), known.tolist(), seed)
        path = self.work / "fits" / f"{fingerprint(*made_from)}.json"
        if not path.exists():
            started = time.perf_counter()
            scores = readers.fit(setting, known, self.work / path.stem, seed=seed)
            seconds = time.perf_counter() - started
            tqdm.write(f"{setting.name}, {len(known)} readers, seed {seed}: {seconds:.0f} s")
            write_json(path, {"seconds": seconds, "scores": [float(score) for score in scores]})
        record = read_json(path)
        self.seconds += record["seconds"]
        return np.array(record["scores"])


def _auc(label: np.ndarray, score: np.ndarray) -> float:
    return 100 * (auc(label, score) or 0.0)


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "spread": float(np.std(values)), "each": values}


def _figures(label: np.ndarray, scores: list[np.ndarray], share: np.ndarray) -> dict[str, Any]:
    """AUC x 100 of each seed, the interval of their mean, and that of its difference to the share alone."""
    rng = np.random.default_rng(0)
    alone, mean = [], []
    for _ in range(RESAMPLED):
        drawn = rng.integers(len(label), size=len(label))
        alone.append(_auc(label[drawn], share[drawn]))
        mean.append(float(np.mean([_auc(label[drawn], score[drawn]) for score in scores])))
    return {
        **_spread([_auc(label, score) for score in scores]),
        "interval": interval(np.array(mean)),
        "beyond_share": interval(np.array(mean) - np.array(alone)),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    root = HERE.parents[1]
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "data" / "tallrec_book")
    parser.add_argument("--work", type=Path, default=root / ".recommender" / "benchmarks" / "tallrec")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
