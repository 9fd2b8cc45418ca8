"""The results of `make bench-quality`, JSON-able, from what every method said of the test rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.benchmarks.quality import metrics
from tests.benchmarks.quality.bench import Bench, Runs, TextbookRuns
from tests.benchmarks.quality.page import CEILINGS, SLICED, TITLES
from tests.benchmarks.training.textbook import as_if_all


def results(bench: Bench, found: Mapping[str, Runs], textbook: TextbookRuns) -> dict[str, Any]:
    """Everything that the page says."""
    data, effort = bench.data, bench.effort
    test = metrics.Rows.of(data, bench.test)
    scores = {name: [run["test"] for run in runs] for name, runs in found.items() if "test" in runs[0]}
    found_metrics = {name: metrics.measured(test, by_seed) for name, by_seed in scores.items()}
    return {
        "examples": {
            "fingerprint": data.schema.fingerprint,
            "rows": {part: int((data.part == part).sum()) for part in np.unique(data.part)},
            "positive": {part: int(data.labels[data.part == part].sum()) for part in np.unique(data.part)},
            "test_from": str(data.schema.test_from),
        },
        "seeds": list(effort.seeds),
        "recipe": bench.recipe.as_dict(),
        "tuned": bench.tuned,
        "metrics": {
            name: {"seconds": float(np.mean([run["seconds"] for run in found[name]])), **one.facts()}
            for name, one in found_metrics.items()
        },
        "paired": {
            name: metrics.difference(found_metrics["ours"], found_metrics[name])
            for name in TITLES
            if name != "ours"
        },
        "campaign": _campaign(bench, found, test),
        "text_only": {
            known: {
                name: metrics.difference(found_metrics[f"ours_{known}"], found_metrics[f"{name}_{known}"])
                for name in ("tabular", "trees")
            }
            for known in ("no_user_item", "no_products")
        },
        "slices": metrics.by_slice(data, bench.test, {name: scores[name] for name in SLICED}),
        "textbook": _textbook(bench, found, textbook),
    }


def _campaign(bench: Bench, found: Mapping[str, Runs], test: metrics.Rows) -> dict[str, Any]:
    """Metrics at campaign level: of every method by each way to put its probabilities together."""
    validation = metrics.Rows.of(bench.data, bench.validation)
    ways = {
        name: metrics.campaign_level(
            test, [run["test"] for run in found[name]], validation, found[name][0].get("validation")
        )
        for name in {**TITLES, **CEILINGS}
    }
    groups = [run["groups"] for run in found["campaign_trees"]]
    ways["campaign_trees"] = {"direct": metrics.measured(metrics.query_group_rows(test), groups)}
    return {name: {way: one.facts() for way, one in each.items()} for name, each in ways.items()}


def _textbook(bench: Bench, found: Mapping[str, Runs], textbook: TextbookRuns) -> dict[str, Any]:
    """The textbook, the trees and ours on the rows that the textbook was measured on."""
    data, measured, groups, runs = bench.data, textbook.measured, textbook.groups, textbook.runs
    every = as_if_all(data.labels, measured)
    place = np.zeros(len(data.rows), dtype=np.int64)
    place[bench.test] = np.arange(len(bench.test))
    parts = {"textbook": [(run["drawn"], run["groups"]) for run in runs]} | {
        name: [(run["test"][place[measured.rows]], run["test"][place[groups]]) for run in found[name]]
        for name in ("trees", "ours")
    }
    drawn = metrics.Rows.of(data, measured.rows[every])
    grouped = metrics.Rows.of(data, groups)
    of_method, draws = {}, {}
    for name, by_seed in parts.items():
        all_rows = metrics.measured(drawn, [p[every] for p, _ in by_seed])
        in_groups = metrics.measured(grouped, [p for _, p in by_seed])
        of_method[name] = all_rows.facts() | {"ndcg_at_10": in_groups.facts()["ndcg_at_10"]}
        draws[name] = (all_rows, in_groups)
    against = [
        metrics.difference(mine, theirs)
        for mine, theirs in zip(draws["ours"], draws["textbook"], strict=True)
    ]
    return {
        "seeds": len(runs),
        "rows": len(textbook.learned),
        "rows_seen": [int(run["rows"]) for run in runs],
        "seconds": [float(run["fit_seconds"]) for run in runs],
        "test_rows": len(measured.rows),
        "test_positive": int(data.labels[measured.rows].sum()),
        "test_query_groups": len(np.unique(grouped.query_group_id)),
        "metrics": of_method,
        "paired": against[0] | {"ndcg_at_10": against[1]["ndcg_at_10"]},
    }
