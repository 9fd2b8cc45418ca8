"""The page of the benchmark of growth."""

from collections.abc import Iterable

from tests.benchmarks.harness import Facts, described, markdown, table

MIB = 2**20


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(facts, _head, _runs, _growth)


def _head(facts: Facts) -> Iterable[str]:
    yield "# Growth with the number of exposures"
    yield f"`make bench-growth`, {described(facts['machine'])}."
    yield (
        "For each size, synthetic examples are written by row groups and a child process fits one epoch of each phase "
        "to them: `python -m training fit` with a light recipe (a small language model from nothing, whose upper layer "
        "learns, no next interactions, no refit, at most 4,096 rows in a step), on one thread. Query groups of 40 "
        "candidates; users, timestamps and histories grow with the exposures, texts do not."
    )


def _runs(facts: Facts) -> Iterable[str]:
    phases = list(facts["runs"][-1]["phase_seconds"])
    yield table(
        (
            "exposures",
            "rows.parquet, MiB",
            "seconds",
            ", ".join(phases),
            "exposures a second",
            "peak memory, MiB",
            "of it without pages of files",
            "AUC",
        ),
        (
            (
                f"{run['exposures']:,}",
                f"{run['rows_parquet_mib']:,}",
                f"{run['seconds']:,.0f}",
                ", ".join(f"{run['phase_seconds'].get(name, 0):.0f}" for name in phases),
                f"{run['rows_per_second']:,}",
                f"{run['peak_memory_mib']:,}",
                f"{run['peak_own_memory_mib']:,}",
                f"{run['auc']:.3f}",
            )
            for run in facts["runs"]
        ),
    )


def _growth(facts: Facts) -> Iterable[str]:
    """What the table says, in sentences that hold whatever the results are."""
    *smaller, last = facts["runs"]
    for first in smaller:
        times = {name: last[name] / first[name] for name in ("exposures", "seconds", "peak_memory_mib")}
        bytes_more = (last["peak_memory_mib"] - first["peak_memory_mib"]) * MIB
        yield (
            f"From {first['exposures']:,} exposures to {last['exposures']:,}, {times['exposures']:,.0f} times as many: "
            f"{times['seconds']:,.1f} times the time, {times['peak_memory_mib']:.2f} times the memory, "
            f"{bytes_more / (last['exposures'] - first['exposures']):.0f} bytes more for each exposure more."
        )
    yield (
        "What still grows: the part of every exposure (1 byte), the row number of those to learn from (4 bytes; a "
        "refit has it twice), twice more those of an epoch's draw, and where each history begins (8 bytes a history). "
        "Too few exposures to fill a batch need less. What is measured, query groups and trees of g take samples of a "
        "fixed size. The columns themselves lie on disk, in --work, while a fit runs."
    )
