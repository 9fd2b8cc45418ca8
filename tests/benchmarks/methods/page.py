"""The page of the benchmark of methods."""

from collections.abc import Iterable

from tests.benchmarks.harness import Facts, described, markdown, table
from tests.benchmarks.methods.fits import COMMON, METHODS, POSITIVE_RATE, chosen

READING = """With 512 turns and 48 steps no way of tuning leaves the frozen model's interval behind. Full
fine-tuning gains most; LoRA comes near it with 1.5 % of the parameters and two thirds of the memory, IA³ with
0.07 % of them. Adapters save memory more than time, as every layer is still read forwards and backwards; the top
two layers, above lower ones that are read once and cached, take a quarter of the time.

Where we lose: AdaLoRA and the top layers gain nothing yet, and the prefix is worse than no tuning: a new prefix
takes attention away from the text, and 48 steps do not win it back. Bottleneck adapters (Houlsby et al. 2019),
which peft 0.21 has not, came later and are not measured here."""


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(facts, _head, _methods)


def _head(facts: Facts) -> Iterable[str]:
    rows = facts["rows"]
    tried = ", ".join(f"{run['method']} {run['rate']:g}" for run in facts["runs"] if run["rate"])
    yield "# Ways to tune the language model"
    yield f"{described(facts['machine'])}; one thread for each fit. Command: `make bench-methods`."
    yield (
        f"Does a customer's turn agree to something? {rows['train']} turns to learn from, {rows['validation']} "
        f"to choose the best of {COMMON['finetuning.epochs']} epochs and of the learning rates tried, "
        f"{rows['test']} to test on, all different; {POSITIVE_RATE:.0%} of them agree. all-MiniLM-L6-v2, one seed; "
        f"in brackets, where 95 % of 1,000 resampled test parts lie. Rates tried: {tried}."
    )


def _methods(facts: Facts) -> Iterable[str]:
    runs = chosen(facts["runs"])
    yield table(
        (
            "method",
            "learning rate",
            "parameters that learn",
            "processor seconds an epoch",
            "peak memory, MiB",
            "AUC",
            "AP",
        ),
        (
            (
                run["method"],
                f"{run['rate']:g}",
                f"{run['parameters']:,}",
                f"{run['epoch_seconds']:.1f}",
                f"{run['peak_mib']:,.0f}",
                *(
                    f"{run[name]:.3f} ({run[f'{name}_interval'][0]:.3f} to {run[f'{name}_interval'][1]:.3f})"
                    for name in ("auc", "ap")
                ),
            )
            for run in runs
        ),
    )
    missing = [method for method in METHODS if method not in {run["method"] for run in runs}]
    if missing:
        yield f"Not measured in this run: {', '.join(missing)}."
    yield READING
