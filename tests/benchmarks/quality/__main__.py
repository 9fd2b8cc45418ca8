"""Every method on the same rows of Complete Journey, in one run.

The rows are the examples that a run of the pipeline made (`make demo` or `make run`). Every scorer's probabilities
are stored as soon as they are there: a run that was killed goes on with the next one, and a run after a change of
code or recipe computes again only what the change touches.
"""

import argparse
import sys

from expectations.errors import SchemaError
from tests.benchmarks.harness import SOURCE, Facts, Store, recipe_of, run
from tests.benchmarks.quality.baselines import covers_of
from tests.benchmarks.quality.bench import QUICK, Bench, Effort
from tests.benchmarks.quality.boosted_trees import bought_later
from tests.benchmarks.quality.page import page
from tests.benchmarks.quality.results import results


def measure(options: argparse.Namespace) -> Facts:
    """Every method's metrics."""
    checked = options.home.absolute() / "checked" / SOURCE
    if not checked.is_dir():
        raise SchemaError(f"{checked} does not exist; run make demo first, or name another --home")
    bench = Bench(
        options.examples,
        covers_of(checked),
        bought_later(checked),
        recipe_of(options),
        QUICK if options.quick else Effort(),
        Store(options.work),
        jobs=options.jobs,
    )
    return {"jobs": options.jobs, **results(bench, bench.run(), bench.textbook())}


if __name__ == "__main__":
    jobs = {"type": int, "default": 1, "help": "fits of ours at a time, each with its share of the cores"}
    sys.exit(run("quality", measure, __doc__, after_demo=True, more={"--jobs": jobs}, page=page))
