"""`make bench-quality`: every method on the same rows of Complete Journey, in one run.

The rows are the examples that a run of the pipeline made (`make demo` or `make run`). Every scorer's probabilities
are kept in a work folder as soon as they are there: a run that was killed goes on with the next one, and a run
after a change of code or recipe computes again only what the change touches. The figures go to
`results/quality.json`, and from there to `quality.md`.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from expectations.errors import RecommenderError, SchemaError
from expectations.storage.datasets import current_folder
from tests.benchmarks.after_demo import SOURCE, Store, command_line, tell, write_page
from tests.benchmarks.quality_bench import Bench, Effort
from tests.benchmarks.quality_ceilings import bought_later
from tests.benchmarks.quality_facts import facts
from tests.benchmarks.quality_page import page
from tests.benchmarks.quality_rivals import covers_of
from training.config.recipe import read_recipe
from training.config.settings import nested

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
    "encoder.max_tokens": 4,
    "early_stopping.refit": False,
    "tabular_model.epochs": 1,
    "tabular_model.num_trees": 10,
    "pretraining.next_interaction_epochs": 1,
    "pretraining.next_interaction_steps": 4,
    "finetuning.negative_sampling_rate": 0.01,
    "finetuning.texts_per_step": 128,
    "finetuning.history_texts_per_step": 2,
}


def places(home: Path, examples: Path | None) -> tuple[Path, Path]:
    """The examples folder and the folder of checked tables."""
    checked = home / "checked" / SOURCE
    if not checked.is_dir():
        raise SchemaError(f"{checked} does not exist; run make demo first, or name another --home")
    return examples or current_folder(home / "examples" / SOURCE), checked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status is 0, or 1 after an error's message."""
    parser = command_line("quality", __doc__)
    parser.add_argument(
        "--jobs", type=int, default=1, help="fits of ours at a time, each with its share of the cores"
    )
    options = parser.parse_args(arguments)
    home = options.home.absolute()
    work = options.work or home / "benchmarks" / "quality"
    start = time.perf_counter()
    try:
        examples, checked = places(home, options.examples)
        recipe = read_recipe(options.recipe)
        effort = QUICK if options.quick else Effort()
        if options.quick and options.recipe is None:
            recipe = recipe.updated(**nested(QUICK_RECIPE))
        tables = (covers_of(checked), bought_later(checked))
        bench = Bench(examples, *tables, recipe, effort, Store(work, tell), jobs=options.jobs)
        found = {"jobs": options.jobs, **facts(bench, bench.run(), bench.textbook())}
    except RecommenderError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    out = work if options.quick else options.out
    write_page("quality", found, page, out=out, quick=options.quick, since=start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
