"""The page of `make bench-training`, from its results."""

from collections.abc import Iterable

from tests.benchmarks.harness import QUICK_SAYS, Facts, described, markdown, table

GOAL = 100
OURS = {
    "every row": "every row of the training part in the fine-tuning phase",
    "recipe": "the packaged recipe: a sample of the negatives",
    "all layers": "every row, all layers of the language model learn",
    "same rows": "only the rows that the textbook saw",
}
TEXTBOOK = {
    "the recipe's layers": "the recipe's layers learn",
    "all layers": "all layers learn",
    "with time": "the recipe's layers learn, with more time",
}


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(facts, _head, _speed, _quality, _where, _floor)


def _loops(facts: Facts) -> list[tuple[str, Facts]]:
    """Title and results of each loop."""
    return [(f"ours: {OURS[name]}", one) for name, one in facts["ours"].items()] + [
        (f"textbook: {TEXTBOOK[name]}", one) for name, one in facts["textbook"].items()
    ]


def _head(facts: Facts) -> Iterable[str]:
    yield "# Training speed beside the textbook loop"
    if facts["quick"]:
        yield QUICK_SAYS
    yield f"`{facts['command']}`, {facts['seconds'] / 60:.0f} minutes. {described(facts['machine'])}."
    decision = "reached" if facts["ratio"] >= GOAL else f"{GOAL / facts['ratio']:.1f} times short"
    ours, textbook = facts["ours"]["every row"], facts["textbook"]["the recipe's layers"]
    patient = facts["textbook"].get("with time")
    best = max(facts["auc_textbook"], patient["auc"] if patient else 0)
    better = "better" if facts["auc_ours"] >= best else "WORSE"
    later = f", and {patient['auc']:.4f} after {patient['seconds'] / 60:.0f} minutes" if patient else ""
    yield (
        f"Ours learns from **{facts['ratio']:.0f} times** as many rows a second as the textbook loop with the same "
        f"trainable layers ({facts['trainable_layers']} of the language model's; the goal of {GOAL} is {decision}), "
        f"at a {better} AUC: {facts['auc_ours']:.4f} after a whole fit of {ours['whole_seconds']:.0f} seconds against "
        f"{facts['auc_textbook']:.4f} after the {textbook['seconds']:.0f} seconds that the textbook was given{later}. "
        f"Counted by the wall time of the whole fit it is {facts['ratio_whole_fit']:.0f} times; with all layers "
        f"learning in both, {facts['ratio_all_layers']:.0f} times; the packaged recipe, which does not read most "
        f"negatives, {facts['ratio_recipe']:.0f} times."
    )


def _speed(facts: Facts) -> Iterable[str]:
    yield "## Rows a second"
    yield table(
        (
            "loop",
            "rows",
            "seconds",
            "rows a second",
            "seconds of the whole fit",
            "rows a second of the whole fit",
        ),
        (
            (
                title,
                f"{one['rows']:,}",
                f"{one.get('finetuning_seconds', one.get('seconds')):.0f}",
                _rate(one["rows_per_second"]),
                f"{one.get('whole_seconds', one.get('seconds')):.0f}",
                _rate(one.get("whole_rows_per_second", one["rows_per_second"])),
            )
            for title, one in _loops(facts)
        ),
    )
    yield (
        "A row counts when its loss was computed and learned from. Ours: the fine-tuning phase, from its first step to "
        "the metrics of the validation part, with every distinct text read anew at its end. The textbook: its loop "
        "alone, the model already loaded; one text a row, tokenised when its turn comes, padded to 128 tokens, "
        "batches of 16."
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _quality(facts: Facts) -> Iterable[str]:
    yield "## What it learned"
    yield table(
        ("loop", "AUC", "AP"),
        ((title, f"{one['auc']:.4f}", f"{one['average_precision']:.4f}") for title, one in _loops(facts)),
    )
    test, train, patient = facts["test"], facts["train"], facts["textbook"].get("with time")
    later = (
        f" With more time it came to see {patient['seen']:,} rows, all positives among them, "
        f"{patient['rows'] / patient['seen']:.1f} times each."
        if patient
        else ""
    )
    yield (
        f"Learned from the training part ({train['rows']:,} rows, {train['positive']} positives), without the refit; "
        f"measured on {test['rows']:,} drawn test rows, all {test['positive']} positives among them; for AP "
        "each negative stands for as many as it was drawn from. The textbook had the wall time of ours' whole fit "
        "on every row, or what its own limit left of it, for rows drawn from the same part, all positives among them."
        f"{later}"
    )


def _where(facts: Facts) -> Iterable[str]:
    yield "## Where the time goes"
    phases = list(dict.fromkeys(phase for one in facts["ours"].values() for phase in one["phase_seconds"]))
    yield table(
        ("ours, seconds", *phases),
        (
            (name, *(f"{one['phase_seconds'].get(phase, 0):.1f}" for phase in phases))
            for name, one in facts["ours"].items()
        ),
    )


def _floor(facts: Facts) -> Iterable[str]:
    one, every = facts["floor"], facts["ours"]["every row"]
    textbook = facts["textbook"]["the recipe's layers"]
    finetuning = one["learning"] + one["refreshing"]
    used = textbook["rows_per_second"] * one["textbook_row"] / one["machine"]
    yield "## How near the floor"
    yield (
        f"{facts['distinct_texts']:,} distinct texts are {one['tokens']:,} tokens ({one['padded']:,} with padding). "
        f"To read them once takes the language model {one['reading']:,.0f} · 10⁹ operations; an epoch of fine-tuning "
        f"takes at least {finetuning:,.0f} (each candidate text forward and backward, every text anew at the end). A "
        f"float32 matrix product of the model's shape reaches {one['machine']:,.0f} · 10⁹ a second here, so those are "
        f"{one['reading'] / one['machine']:.0f} and {finetuning / one['machine']:.0f} seconds; measured: "
        f"{every['phase_seconds'].get('texts', 0):.0f} (`texts`) and {every['finetuning_seconds']:.0f} (`finetuning`; "
        f"history texts read with gradient, the head over {every['rows']:,} rows and the validation part are the rest)."
    )
    yield (
        f"The textbook needs {one['textbook_row']:.1f} · 10⁹ a row: at {textbook['rows_per_second']:.1f} rows a second "
        f"it uses {100 * used:.0f} % of the same ceiling. What it loses, it loses by reading the same texts again for "
        "every row."
    )
