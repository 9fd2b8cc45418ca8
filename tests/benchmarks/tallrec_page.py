"""The page of the benchmark on TALLRec's book data."""

from typing import Any

from tests.benchmarks.machine import described

SHARE = "share of liked books in the history, no model"
# AUC x 100 at 16, 64 and 256 examples: Bao et al. 2023 (RecSys, arXiv 2305.00447), table of the repository.
PUBLISHED = {
    "TALLRec (LLaMA-7B, LoRA)": (56.36, 60.39, 64.38),
    "GRU": (48.95, 49.64, 49.86),
    "Caser": (49.84, 49.72, 49.57),
    "SASRec": (49.48, 50.06, 50.20),
    "DROS": (49.28, 49.13, 49.13),
    "GRU-BERT": (50.07, 49.64, 49.79),
    "DROS-BERT": (50.07, 48.98, 50.20),
}
_PAGE = """# TALLRec's book data: polarity in the history, and few examples

{machine}. `make bench-tallrec`, {seconds} s of fitting.

A reader, the books that the reader liked and disliked (3 to 10), one more book: will the reader like it? Test: the
data set's test split, {num_test:,} readers. AUC x 100. The language model is MiniLM (22 M parameters), frozen.

## The whole valid split (2,427 readers) to learn from

| scorer | AUC (± between seeds) | 95 % | beyond the share of liked books, 95 % |
|---|---|---|---|
{full}

## Few examples, as published

| scorer | 16 | 64 | 256 |
|---|---|---|---|
| ours, {draws} draws | {few} |
{published}

Published figures: Bao et al. 2023 (arXiv 2305.00447), the table of its repository; not run here.

## What it says

To be written.
"""


def page(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    few = found["few"].values()
    published = [
        f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |" for name, values in PUBLISHED.items()
    ]
    return _PAGE.format(
        machine=described(found["machine"]),
        seconds=f"{found['seconds']:,}",
        num_test=found["num_test"],
        full="\n".join(_row(name, line) for name, line in found["full"].items()),
        draws=len(next(iter(few))["each"]),
        few=" | ".join(f"{line['mean']:.2f} ± {line['spread']:.2f}" for line in few),
        published="\n".join(published),
    )


def _row(name: str, line: dict[str, Any]) -> str:
    low, high = line["interval"]
    below, above = line["beyond_share"]
    seeds = f" ± {line['spread']:.2f}" if len(line["each"]) > 1 else ""
    beyond = "" if name == SHARE else f"{below:+.2f} to {above:+.2f}"
    return f"| {name} | {line['mean']:.2f}{seeds} | {low:.2f} to {high:.2f} | {beyond} |"
