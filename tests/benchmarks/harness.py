"""What every benchmark shares: command line, machine facts, stores of finished parts, JSON results, Markdown pages.

A benchmark is a folder: `__main__` measures, `page.md.jinja` is the README with the results left out, and `run` joins
both. A template's paragraph may run over several lines: they become one, but for those in `{% filter verbatim %}`.
Finished parts are stored under a key that `training_code` is part of: a run that was killed goes on, and a run after a
change of code measures again.
"""

import argparse
import functools
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    NEXT_INTERACTIONS,
    ROWS,
    TEXTS,
    ExampleSchema,
)
from expectations.errors import RecommenderError
from expectations.storage.atomic import read_json, write_json, write_text
from expectations.storage.datasets import current_folder
from expectations.storage.hashes import file_hash, fingerprint
from training.config.recipe import Recipe, read_recipe
from training.config.settings import nested

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = "complete_journey"
PACKAGES = ("torch", "transformers", "lightgbm", "lenskit")
Facts = dict[str, Any]
# Enough of every phase to see that it runs; metrics of a quick run say nothing.
QUICK_RECIPE = {
    "encoder.max_tokens": 4,
    "early_stopping.refit": False,
    "tabular_model.epochs": 1,
    "tabular_model.num_trees": 10,
    "pretraining.next_interaction_epochs": 1,
    "pretraining.next_interaction_steps": 4,
    "finetuning.negatives_per_positive": 4.0,
    "finetuning.texts_per_step": 128,
    "finetuning.history_texts_per_step": 2,
}
QUICK_SAYS = "**A quick run: it shows that every part runs; its metrics say nothing.**"

AFTER_DEMO: dict[str, Facts] = {
    "--examples": {"type": Path, "help": "examples folder (default: HOME's Complete Journey)"},
    "--recipe": {"type": Path, "help": "TOML file (default: the packaged recipe)"},
    "--quick": {"action": "store_true", "help": "a little of everything, written to the work folder"},
}
VERBATIM = "\0"  # a line's end that stays
PAGES = Environment(  # noqa: S701 - Markdown is not escaped
    loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
PAGES.filters |= {
    "fmt": format,
    "verbatim": lambda text: text.strip("\n").replace("\n", VERBATIM),
    "row": lambda cells: f"| {' | '.join(map(str, cells))} |",
    "head": lambda cells: f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}",
}


def run(
    name: str,
    measure: Callable[[argparse.Namespace], Facts],
    about: str | None,
    *,
    after_demo: bool = False,
    more: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    page: Callable[[Facts], str] | None = None,
) -> int:
    """Read the command line, measure, write `results/<name>.json` and from it `<name>/README.md`.

    Args:
        name: of the benchmark and its make target.
        measure: what is to be measured, JSON-able.
        about: its description.
        after_demo: whether it starts from the examples that `make demo` left, and has a quick variant.
        more: options of its own, as `add_argument` takes them.
        page: makes the page of the results; None: the benchmark's template alone.

    Returns:
        The exit status: 0, or 1 after an error's message.
    """
    home = Path(os.environ.get("RECOMMENDER_HOME") or ".recommender")
    work = f"store of finished parts (default: HOME/benchmarks/{name})"
    flags: dict[str, Mapping[str, Any]] = {
        "--home": {"type": Path, "default": home, "help": "RECOMMENDER_HOME"},
        "--work": {"type": Path, "help": work},
        "--out": {"type": Path, "default": HERE, "help": "where page and results/ go (not of --quick)"},
        **(AFTER_DEMO if after_demo else {}),
        **more,
    }
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=about)
    for flag, settings in flags.items():
        parser.add_argument(flag, **settings)
    options = parser.parse_args()
    options.work = (options.work or options.home / "benchmarks" / name).absolute()
    quick, start = getattr(options, "quick", False), time.perf_counter()
    try:
        if hasattr(options, "examples"):
            options.examples = options.examples or current_folder(options.home / "examples" / SOURCE)
        found = measure(options)
    except RecommenderError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    facts = {
        "machine": machine(),
        "command": f"make bench-{name.replace('_', '-')}" + (" QUICK=1" if quick else ""),
        "seconds": round(time.perf_counter() - start),
        "quick": quick,
        **found,
    }
    out = options.work if quick else options.out
    write_json(out / "results" / f"{name}.json", facts)
    write_text(out / name / "README.md", page(facts) if page else markdown(name, facts))
    tell(f"{out / name}/README.md: {facts['seconds']} s")
    return 0


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe of a benchmark that starts after the demo."""
    recipe = read_recipe(options.recipe)
    quick = options.quick and options.recipe is None
    return recipe.updated(**nested(QUICK_RECIPE)) if quick else recipe


def tell(line: str) -> None:
    """Say one line with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def shared_data(name: str) -> Path:
    """The folder of a public data set, below SHARED_DATA or beside the checkout."""
    return Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data") / name


@functools.cache
def training_code() -> str:
    """Hash of the code that trains, as it was when first asked for: another may train other models."""
    return fingerprint(*(file_hash(path) for path in sorted((ROOT / "training").rglob("*.py"))))


class Store:
    """Finished parts of a benchmark, on disk.

    Args:
        folder: where they lie.
        tell: says one line to who watches.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = tell) -> None:
        self.folder, self.tell = folder, tell
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str, key: str) -> bool:
        """Whether it was made already."""
        return any((self.folder / f"{name}-{key}{suffix}").exists() for suffix in (".npz", ".json"))

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
        with np.load(path) as stored:
            return dict(stored)

    def record(self, name: str, key: str, make: Callable[[], Facts]) -> Facts:
        """What `make` made, JSON-able, now or in an earlier run with the same key."""
        path = self.folder / f"{name}-{key}.json"
        if not path.exists():
            write_json(path, make())
        return dict(read_json(path))


def linked_examples(examples: Path, folder: Path, *, chosen: np.ndarray | None = None, **schema: Any) -> Path:
    """An examples folder with other values of the schema, whose tables are links to the same files.

    Args:
        examples: the examples folder.
        folder: where the other is made.
        chosen: (N,) which rows it has; None: all.
        **schema: values of `ExampleSchema` that differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ROWS, INTERACTION_HISTORIES, TEXTS, NEXT_INTERACTIONS):
        if name == ROWS and chosen is not None:
            pq.write_table(pq.read_table(examples / ROWS).filter(pa.array(chosen)), folder / ROWS)
        elif (examples / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to((examples / name).absolute())
    replace(ExampleSchema.read(examples), **schema).write(folder)
    return folder


def machine() -> Facts:
    """Processor, cores, memory, accelerator, packages, and the date (UTC)."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": {name: number for name in PACKAGES if (number := _version(name))},
    }


def described(found: Facts) -> str:
    """A machine in one line of Markdown."""
    accelerator = found["accelerator"] or "no GPU"
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['date'][:10]}, {found['cores']} cores ({found['processor']}), {found['threads']} threads, "
        f"{found['memory_gib']} GiB, {accelerator}; {found['system']}; {packages}"
    )


def markdown(name: str, facts: Facts, **more: Any) -> str:
    """The page that a benchmark's template makes of its results, and of whatever more it names."""
    quick = QUICK_SAYS if facts.get("quick") else ""
    template = PAGES.get_template(f"{name}/page.md.jinja")
    text = template.render(facts, machine=described(facts["machine"]), quick_note=quick, **more)
    blocks = [block for block in re.split(r"\n{2,}", text.strip("\n")) if block]
    joined = (block if block[0] in "#|" else " ".join(block.splitlines()) for block in blocks)
    return "\n\n".join(joined).replace(VERBATIM, "\n") + "\n"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # a machine for training alone has no rivals
        return None
