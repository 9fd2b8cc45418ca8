"""`make bench-quality`: every method on the same rows of Complete Journey, in one run.

The rows are the examples that a run of the pipeline made (`make demo` or `make run`). Every scorer's probabilities
are kept in a work folder as soon as they are there: a run that was killed goes on with the next one, and a run
after a change of code or recipe computes again only what the change touches. The figures go to
`results/quality.json`, and from there to `quality.md`.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from expectations.contracts.errors import RecommenderError, SchemaError
from expectations.contracts.landing import current_folder, write_json
from tests.benchmarks.machine import machine
from tests.benchmarks.quality_bench import Bench, Effort, Store
from tests.benchmarks.quality_facts import facts
from tests.benchmarks.quality_page import page
from tests.benchmarks.quality_rivals import covers_of
from training.recipe import read_recipe

HERE = Path(__file__).parent
SOURCE = "complete_journey"
QUICK = Effort(
    seeds=(7,),
    trials=2,
    textbook_others=64,
    textbook_seconds=10.0,
    test_others=64,
    test_lists=2,
)
# Enough of every stage to see that it runs; figures of a quick run say nothing.
QUICK_RECIPE = {
    "max_tokens": 4,
    "refit": False,
    "tabular_epochs": 1,
    "trees": 10,
    "purchase_epochs": 1,
    "purchase_steps": 4,
    "negatives": 0.01,
    "texts_per_step": 128,
    "history_texts_per_step": 2,
}


def places(home: Path, examples: Path | None) -> tuple[Path, Path]:
    """The examples folder and the folder of checked tables."""
    checked = home / "checked" / SOURCE
    if not checked.is_dir():
        raise SchemaError(f"{checked} does not exist; run make demo first, or name another --home")
    return examples or current_folder(home / "examples" / SOURCE), checked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status is 0, or 1 after an error's message."""
    options = _parser().parse_args(arguments)
    home = options.home.absolute()
    work = options.work or home / "benchmarks" / "quality"
    start = time.perf_counter()
    try:
        examples, checked = places(home, options.examples)
        recipe = read_recipe(options.recipe)
        effort = QUICK if options.quick else Effort()
        if options.quick and options.recipe is None:
            recipe = replace(recipe, **QUICK_RECIPE)
        bench = Bench(examples, covers_of(checked), recipe, effort, Store(work, tell))
        found = facts(bench, bench.run(), bench.textbook())
    except RecommenderError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    seconds = round(time.perf_counter() - start)
    command = "make bench-quality" + (" QUICK=1" if options.quick else "")
    written = {"machine": machine(), "command": command, "seconds": seconds, "quick": options.quick, **found}
    out = work if options.quick else options.out
    write_json(out / "results" / "quality.json", written)
    (out / "quality.md").write_text(page(written), encoding="utf-8")
    tell(f"{out / 'quality.md'}: {seconds} s")
    return 0


def tell(line: str) -> None:
    """Say one line with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quality", description=__doc__)
    home = Path(os.environ.get("RECOMMENDER_HOME") or ".recommender")
    parser.add_argument(
        "--home", type=Path, default=home, help="RECOMMENDER_HOME, after a run on Complete Journey"
    )
    parser.add_argument("--examples", type=Path, help="examples folder (default: the home's current one)")
    parser.add_argument("--recipe", type=Path, help="TOML file (default: the packaged recipe)")
    parser.add_argument(
        "--work", type=Path, help="finished scorers are kept here (default: HOME/benchmarks/quality)"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE, help="where the page and results/ go (not of --quick)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, written to the work folder"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
