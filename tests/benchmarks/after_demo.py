"""What benchmarks share that start where `make demo` ended: their command line, what they say, what they write.

What a benchmark keeps of its finished parts, it keeps under a key that `training_code` is part of.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from expectations.storage.atomic import write_json
from expectations.storage.hashes import file_hash, fingerprint
from tests.benchmarks.machine import machine

HERE = Path(__file__).parent
SOURCE = "complete_journey"
TRAINING = Path(__file__).parents[2] / "training"


def command_line(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m tests.benchmarks.<name>`."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=about)
    home = Path(os.environ.get("RECOMMENDER_HOME") or ".recommender")
    parser.add_argument(
        "--home", type=Path, default=home, help="RECOMMENDER_HOME, after a run on Complete Journey"
    )
    parser.add_argument("--examples", type=Path, help="examples folder (default: the home's current one)")
    parser.add_argument("--recipe", type=Path, help="TOML file (default: the packaged recipe)")
    parser.add_argument(
        "--work", type=Path, help=f"finished parts are kept here (default: HOME/benchmarks/{name})"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="where the page and results/ go (not of --quick)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, written to the work folder"
    )
    return parser


@functools.cache
def training_code() -> str:
    """Hash of the code that trains, as it was when first asked for: another may train other models."""
    return fingerprint(*(file_hash(path) for path in sorted(TRAINING.glob("*.py"))))


def tell(line: str) -> None:
    """Say one line with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


class Store:
    """Arrays of finished parts, on disk.

    Args:
        folder: where they are kept.
        tell: says one line to who watches.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str, key: str) -> bool:
        """Whether it was made already."""
        return (self.folder / f"{name}-{key}.npz").exists()

    def arrays(self, name: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What `make` made, now or in an earlier run with the same key; its wall time is "seconds"."""
        path = self.folder / f"{name}-{key}.npz"
        if not self.has(name, key):
            start = time.perf_counter()
            made = make()
            made.setdefault("seconds", np.array(time.perf_counter() - start))
            half = path.with_suffix(".half.npz")
            np.savez(half, **made)
            half.rename(path)
            self.tell(f"{name}: {float(made['seconds']):.0f} s")
        with np.load(path) as kept:
            return dict(kept)


def write_page(
    name: str,
    found: dict[str, Any],
    page: Callable[[dict[str, Any]], str],
    *,
    out: Path,
    quick: bool,
    since: float,
) -> None:
    """Write `results/<name>.json` and from the same figures `<name>.md`.

    Args:
        name: of the benchmark and its make target.
        found: its figures.
        page: makes the page of them.
        out: where both go.
        quick: whether it was a quick run, whose figures say nothing.
        since: `time.perf_counter()` when it began.
    """
    facts = {
        "machine": machine(),
        "command": f"make bench-{name}" + (" QUICK=1" if quick else ""),
        "seconds": round(time.perf_counter() - since),
        "quick": quick,
        **found,
    }
    write_json(out / "results" / f"{name}.json", facts)
    (out / f"{name}.md").write_text(page(facts), encoding="utf-8")
    tell(f"{out / name}.md: {facts['seconds']} s")
