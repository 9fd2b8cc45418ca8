"""The figures of `make bench-quality`, JSON-able, from what every method said of the test rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.benchmarks import quality_figures, training_textbook
from tests.benchmarks.quality_bench import Bench, Runs, TextbookRuns
from tests.benchmarks.quality_ours import FROZEN, OURS, PAST

TITLES = {
    "popularity": "popularity",
    "past_baskets": "past baskets (visits with what the coupon covers)",
    "ease": "EASE (LensKit), household × product type",
    "trees": "LightGBM, tuned",
    "trees_ease": "LightGBM, tuned, with the EASE score",
    "past": PAST.title,
    "frozen": FROZEN.title,
    "ours": OURS.title,
}
TABULAR = ("popularity", "past_baskets", "ease", "trees", "trees_ease")
CEILINGS = {
    "trees_uncrossed": "no count of where household and coupon meet",
    "trees_named": "… but those of the product types, categories and departments that the coupon's text names",
    "trees": "every feature",
    "trees_future": "… and what the household will buy of the coupon's products while it is valid",
}
SLICED = ("past_baskets", "trees", "past", "ours")


def facts(bench: Bench, found: Mapping[str, Runs], textbook: TextbookRuns) -> dict[str, Any]:
    """Everything that the page says."""
    data, effort = bench.data, bench.effort
    test = quality_figures.Rows.of(data, bench.test)
    scores = {name: [run["test"] for run in runs] for name, runs in found.items() if "test" in runs[0]}
    figures = {name: quality_figures.measured(test, by_seed) for name, by_seed in scores.items()}
    return {
        "examples": {
            "fingerprint": data.schema.fingerprint,
            "rows": {part: int((data.part == part).sum()) for part in np.unique(data.part)},
            "answered": {part: int(data.labels[data.part == part].sum()) for part in np.unique(data.part)},
            "test_from": str(data.schema.test_from),
        },
        "seeds": list(effort.seeds),
        "recipe": bench.recipe.as_dict(),
        "titles": TITLES,
        "tabular": TABULAR,
        "tuned": bench.tuned,
        "figures": {
            name: {"seconds": float(np.mean([run["seconds"] for run in found[name]])), **one.facts()}
            for name, one in figures.items()
        },
        "paired": {
            name: quality_figures.difference(figures["ours"], figures[name])
            for name in TITLES
            if name != "ours"
        },
        "campaign": _campaign(bench, found, test),
        "ceilings": CEILINGS,
        "text_only": {
            known: {
                name: quality_figures.difference(figures[f"ours_{known}"], figures[f"{name}_{known}"])
                for name in ("past", "trees")
            }
            for known in ("uncrossed", "told")
        },
        "slices": quality_figures.by_slice(data, bench.test, {name: scores[name] for name in SLICED}),
        "textbook": _textbook(bench, found, textbook),
    }


def _campaign(bench: Bench, found: Mapping[str, Runs], test: quality_figures.Rows) -> dict[str, Any]:
    """Figures at campaign level: of every method by each way to put its probabilities together."""
    validation = quality_figures.Rows.of(bench.data, bench.validation)
    ways = {
        name: quality_figures.campaign_level(
            test, [run["test"] for run in found[name]], validation, found[name][0].get("validation")
        )
        for name in {**TITLES, **CEILINGS}
    }
    lists = [run["lists"] for run in found["campaign_trees"]]
    ways["campaign_trees"] = {"direct": quality_figures.measured(quality_figures.list_rows(test), lists)}
    return {name: {way: one.facts() for way, one in each.items()} for name, each in ways.items()}


def _textbook(bench: Bench, found: Mapping[str, Runs], textbook: TextbookRuns) -> dict[str, Any]:
    """The textbook, the trees and ours on the rows that the textbook was measured on."""
    data, measured, whole, runs = bench.data, textbook.measured, textbook.whole, textbook.runs
    every = training_textbook.as_if_all(data.labels, measured)
    place = np.zeros(len(data.rows), dtype=np.int64)
    place[bench.test] = np.arange(len(bench.test))
    parts = {"textbook": [(run["drawn"], run["lists"]) for run in runs]} | {
        name: [(run["test"][place[measured.rows]], run["test"][place[whole]]) for run in found[name]]
        for name in ("trees", "ours")
    }
    drawn = quality_figures.Rows.of(data, measured.rows[every])
    listed = quality_figures.Rows.of(data, whole)
    figures, draws = {}, {}
    for name, by_seed in parts.items():
        all_rows = quality_figures.measured(drawn, [p[every] for p, _ in by_seed])
        in_lists = quality_figures.measured(listed, [p for _, p in by_seed])
        figures[name] = all_rows.facts() | {"ndcg_at_10": in_lists.facts()["ndcg_at_10"]}
        draws[name] = (all_rows, in_lists)
    against = [
        quality_figures.difference(mine, theirs)
        for mine, theirs in zip(draws["ours"], draws["textbook"], strict=True)
    ]
    return {
        "seeds": len(runs),
        "rows": len(textbook.learned),
        "rows_seen": [int(run["rows"]) for run in runs],
        "seconds": [float(run["fit_seconds"]) for run in runs],
        "test_rows": len(measured.rows),
        "test_positive": int(data.labels[measured.rows].sum()),
        "test_lists": len(np.unique(listed.query_group_id)),
        "figures": figures,
        "paired": against[0] | {"ndcg_at_10": against[1]["ndcg_at_10"]},
    }
