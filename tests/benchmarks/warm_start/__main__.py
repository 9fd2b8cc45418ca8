"""Periodic retraining, simulated: as good from the champion's weights as from scratch, for a part of the work?

And the final fit, which is deployed: what the evaluated model gains by being fitted again to all that is known.

Run it again and it goes on; --most lets others have their turn.
"""

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np

from expectations.contracts.examples import ExampleSchema
from expectations.errors import TransientError
from expectations.storage.hashes import fingerprint
from tests.benchmarks.harness import (
    Facts,
    Store,
    linked_examples,
    recipe_of,
    run,
    training_code,
)
from tests.benchmarks.quality.metrics import Rows, difference, measured
from training.data.dataset import read_examples
from training.data.split import TEST
from training.inference.predictor import Predictor
from training.pipeline.fit import fit

ARRIVALS = (  # the champion's border, and that of the retraining
    (datetime(2017, 5, 31), datetime(2017, 8, 8)),
    (datetime(2017, 9, 1), datetime(2017, 10, 30)),
)
KINDS = CHAMPION, SCRATCH, WARM, FINAL = "champion", "scratch", "warm", "final"


def measure(options: argparse.Namespace) -> Facts:
    """Run the fits that are left, then measure all."""
    if options.quick:
        options.seeds, options.arrivals = options.seeds[:1], 1
    bench = Bench(options)
    fits = [
        (seed, number, kind) for number in range(options.arrivals) for seed in options.seeds for kind in KINDS
    ]
    left = [one for one in fits if not bench.store.has(*bench.place(*one))]
    for one in left[: options.most]:
        bench.fit(*one)
    if len(left) > options.most:
        raise TransientError(f"{len(left) - options.most} fits are left; run again")
    return {"seeds": options.seeds, "arrivals": [bench.arrival(number) for number in range(options.arrivals)]}


class Bench:
    """All fits of one run, each made once.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.recipe = recipe_of(options)
        if options.quick:  # without the refit, what is new in the validation part would not be learned
            self.recipe = self.recipe.updated(early_stopping={"refit": True})
        self.options, self.store = options, Store(options.work)

    def place(self, seed: int, number: int, kind: str) -> tuple[str, str]:
        """Name and key of a fit's record."""
        examples = ExampleSchema.read(self.options.examples).fingerprint
        key = fingerprint(examples, self.recipe.updated(seed=seed).as_dict(), training_code())
        return f"{number}-{kind}-seed-{seed}", key

    def fit(self, seed: int, number: int, kind: str) -> Facts:
        """Fit, now or in an earlier run; the record is written at the end."""
        name, key = self.place(seed, number, kind)
        folder = self.options.work / f"{name}-{key}"

        def make() -> Facts:
            before = Path(self.fit(seed, number, CHAMPION)["bundle"]) if kind in (WARM, FINAL) else None
            begun = {"champion": before} if kind == WARM else {"parent": before} if kind == FINAL else {}
            recipe = self.recipe.updated(seed=seed)
            cpu, started = time.process_time(), time.perf_counter()
            places = {"out": folder / "out", "work": folder / "work", "log_dir": folder / "tb"}
            result = fit(self.examples(number, kind), recipe, **places, **begun)
            return {
                "bundle": str(result.bundle),
                "consecutive_warm_starts": result.consecutive_warm_starts,
                "history": result.history,
                "cpu_seconds": time.process_time() - cpu,
                "seconds": time.perf_counter() - started,
                "phase_seconds": result.seconds,
                "steps": sum(entry["steps"] for entry in result.history),
            }

        return self.store.record(name, key, make)

    def examples(self, number: int, kind: str) -> Path:
        """The examples as they were known at this border: the same files, another `test_from`.

        For the final fit those before the later border: what lies between the two is its parent's test part.
        """
        earlier, later = ARRIVALS[number]
        if kind == FINAL:
            folder = self.options.work / f"examples-{earlier.date()}-{later.date()}"
            known = read_examples(self.options.examples).rows["event_timestamp"].to_numpy() < np.datetime64(
                later
            )
            return linked_examples(self.options.examples, folder, chosen=known, test_from=earlier)
        border = earlier if kind == CHAMPION else later
        folder = self.options.work / f"examples-{border.date()}"
        return linked_examples(self.options.examples, folder, test_from=border)

    def arrival(self, number: int) -> Facts:
        """Champion, scratch and warm on the rows from the later border on: means over the seeds, differences, costs."""
        data = read_examples(self.examples(number, WARM))
        test, new = data.part == TEST, (data.rows["event_timestamp"] >= ARRIVALS[number][0]).to_numpy()
        fits = {kind: [self.fit(seed, number, kind) for seed in self.options.seeds] for kind in KINDS}
        rows = Rows.of(data, np.flatnonzero(test))
        found = {
            kind: measured(
                rows, [Predictor.load(Path(one["bundle"])).score_examples(data).probability for one in ones]
            )
            for kind, ones in fits.items()
        }
        metrics = {kind: one.facts() for kind, one in found.items()}
        return {
            "from": ARRIVALS[number][0].date().isoformat(),
            "until": ARRIVALS[number][1].date().isoformat(),
            "rows": {
                name: {"rows": int(chosen.sum()), "positive": int(data.labels[chosen].sum())}
                for name, chosen in (("known", ~test & ~new), ("new", ~test & new), ("test", test))
            },
            "metrics": {
                kind: {name: values["mean"] for name, values in one.items()} for kind, one in metrics.items()
            },
            "by_seed": {kind: one.by_seed for kind, one in found.items()},
            "spread": {name: values["deviation"] for name, values in metrics[SCRATCH].items()},
            "warm_minus_scratch": difference(found[WARM], found[SCRATCH]),
            "final_minus_champion": difference(found[FINAL], found[CHAMPION]),
            "cost": {
                kind: {
                    name: float(np.mean([one[name] for one in fits[kind]]))
                    for name in ("steps", "cpu_seconds", "seconds")
                }
                for kind in (SCRATCH, WARM)
            },
        }


if __name__ == "__main__":
    more = {
        "--seeds": {"type": int, "nargs": "+", "default": [7, 8, 9]},
        "--arrivals": {
            "type": int,
            "choices": (1, 2),
            "default": 2,
            "help": "how often new campaigns arrive",
        },
        "--most": {"type": int, "default": 10**6, "help": "fits to run now"},
    }
    sys.exit(run("warm_start", measure, __doc__, after_demo=True, more=more))
