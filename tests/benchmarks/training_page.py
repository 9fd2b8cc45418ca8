"""The page of `make bench-training`, from its figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.benchmarks.machine import described

GOAL = 100
WHAT = {
    "every row": "every row of the training part in the words stage",
    "recipe": "the packaged recipe: a share of the unanswered rows",
    "all layers": "every row, all layers of the language model learn",
    "same rows": "only the rows that the textbook saw",
}
TEXTBOOK = {
    "the recipe's layers": "the recipe's layers learn",
    "all layers": "all layers learn",
    "with time": "the recipe's layers learn, with more time",
}


def page(facts: Mapping[str, Any]) -> str:
    """The whole page, Markdown."""
    return "\n".join(
        line for part in (_head, _speed, _quality, _where, _floor) for line in (*part(facts), "")
    )


def _head(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "# Training speed beside the textbook loop"
    yield ""
    if facts["quick"]:
        yield "**A quick run: it shows that every part runs; its figures say nothing.**"
        yield ""
    yield f"`{facts['command']}`, {facts['seconds'] / 60:.0f} minutes. {described(facts['machine'])}."
    yield ""
    decision = "reached" if facts["ratio"] >= GOAL else f"{GOAL / facts['ratio']:.1f} times short"
    ours, textbook = facts["ours"]["every row"], facts["textbook"]["the recipe's layers"]
    patient = facts["textbook"]["with time"]
    best = max(facts["auc_textbook"], facts["auc_textbook_patient"])
    better = "better" if facts["auc_ours"] >= best else "WORSE"
    yield (
        f"Ours learns from **{facts['ratio']:.0f} times** as many rows a second as the textbook loop with the same "
        f"trainable layers ({facts['trainable_layers']} of the language model's; the goal of {GOAL} is {decision}), "
        f"at a {better} AUC: {facts['auc_ours']:.4f} after a whole fit of {ours['whole_seconds']:.0f} seconds against "
        f"{facts['auc_textbook']:.4f} after the {textbook['seconds']:.0f} seconds that the textbook was given, "
        f"and {patient['auc']:.4f} after {patient['seconds'] / 60:.0f} minutes. "
        f"Counted by the wall time of the whole fit it is {facts['ratio_whole_fit']:.0f} times; with all layers "
        f"learning in both, {facts['ratio_all_layers']:.0f} times; the packaged recipe, which does not read most "
        f"unanswered rows, {facts['ratio_recipe']:.0f} times."
    )


def _speed(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Rows a second"
    yield ""
    yield from _table(
        (
            "loop",
            "rows",
            "seconds",
            "rows a second",
            "seconds of the whole fit",
            "rows a second of the whole fit",
        ),
        [
            *(
                (
                    f"ours: {WHAT[name]}",
                    f"{one['rows']:,}",
                    f"{one['words_seconds']:.0f}",
                    f"{one['rows_per_second']:,.0f}",
                    f"{one['whole_seconds']:.0f}",
                    f"{one['whole_rows_per_second']:,.0f}",
                )
                for name, one in facts["ours"].items()
            ),
            *(
                (
                    f"textbook: {TEXTBOOK[name]}",
                    f"{one['rows']:,}",
                    f"{one['seconds']:.0f}",
                    f"{one['rows_per_second']:,.1f}",
                    f"{one['seconds']:.0f}",
                    f"{one['rows_per_second']:,.1f}",
                )
                for name, one in facts["textbook"].items()
            ),
        ],
    )
    yield ""
    yield (
        "A row counts when its loss was computed and learned from. Ours: the words stage, from its first step to the "
        "figures of the validation part, with every distinct text read anew at its end. The textbook: its loop "
        "alone, the model already loaded; one text a row, tokenised when its turn comes, padded to 128 tokens, "
        "batches of 16."
    )


def _quality(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## What it learned"
    yield ""
    rows = [(f"ours: {WHAT[name]}", one) for name, one in facts["ours"].items()]
    rows += [(f"textbook: {TEXTBOOK[name]}", one) for name, one in facts["textbook"].items()]
    yield from _table(
        ("loop", "AUC", "AP"),
        ((title, f"{one['auc']:.4f}", f"{one['average_precision']:.4f}") for title, one in rows),
    )
    yield ""
    test, train, patient = facts["test"], facts["train"], facts["textbook"]["with time"]
    yield (
        f"Learned from the training part ({train['rows']:,} rows, {train['answered']} answered), without the refit; "
        f"measured on {test['rows']:,} drawn test rows, all {test['answered']} answered ones among them; for AP "
        "each other row stands for as many as it was drawn from. The textbook had the wall time of ours' whole fit "
        "on every row, or what its own limit left of it, for rows drawn from the same part, all answered among them. "
        f"With more time it came to see {patient['seen']:,} rows, all answered among them, "
        f"{patient['rows'] / patient['seen']:.1f} times each."
    )


def _where(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Where the time goes"
    yield ""
    laps = list(dict.fromkeys(lap for one in facts["ours"].values() for lap in one["laps"]))
    yield from _table(
        ("ours, seconds", *laps),
        ((name, *(f"{one['laps'].get(lap, 0):.1f}" for lap in laps)) for name, one in facts["ours"].items()),
    )


def _floor(facts: Mapping[str, Any]) -> Iterable[str]:
    one, every = facts["floor"], facts["ours"]["every row"]
    textbook = facts["textbook"]["the recipe's layers"]
    words = one["learning"] + one["refreshing"]
    used = textbook["rows_per_second"] * one["textbook_row"] / one["machine"]
    yield "## How near the floor"
    yield ""
    yield (
        f"{facts['distinct_texts']:,} distinct texts are {one['tokens']:,} tokens ({one['padded']:,} with padding). "
        f"To read them once takes the language model {one['reading']:,.0f} · 10⁹ operations; a words epoch takes at "
        f"least {words:,.0f} (each candidate text forward and backward, every text anew at the end). A float32 matrix "
        f"product of the model's shape reaches {one['machine']:,.0f} · 10⁹ a second here, so those are "
        f"{one['reading'] / one['machine']:.0f} and {words / one['machine']:.0f} seconds; measured: "
        f"{every['laps'].get('texts', 0):.0f} (`texts`) and {every['words_seconds']:.0f} (`words`; history texts read "
        f"with gradient, the head over {every['rows']:,} rows and the validation part are the rest)."
    )
    yield ""
    yield (
        f"The textbook needs {one['textbook_row']:.1f} · 10⁹ a row: at {textbook['rows_per_second']:.1f} rows a second "
        f"it uses {100 * used:.0f} % of the same ceiling. What it loses, it loses by reading the same words again for "
        "every row."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
