"""Rows a second of ours beside the textbook loop, on the same machine, model and rows.

Four fits of ours by the product's own `fit`, without the refit, and three textbook loops:

- `every row`: the recipe with every row of the training part in the fine-tuning phase. The textbook of the same
  trainable layers gets the wall time of that whole fit, and rows drawn from the same training part.
- `recipe`: as it is packaged; of the negatives it draws a sample.
- `all layers`: every row, the whole language model learning, beside a textbook that does the same.
- `same rows`: ours on nothing but the rows that the textbook came to see in its time.
- a textbook with time: many times that of ours, and more rows, each of them more than once.
"""

import argparse
import sys

from tests.benchmarks.harness import Facts, recipe_of, run, tell
from tests.benchmarks.training.bench import QUICK, Bench, Effort


def measure(options: argparse.Namespace) -> Facts:
    """All fits and loops."""
    effort = QUICK if options.quick else Effort()
    return Bench(options.examples, recipe_of(options), effort, options.work / "fits", tell).run()


if __name__ == "__main__":
    sys.exit(run("training", measure, __doc__, after_demo=True))
