"""Periodic retraining, simulated: as good from the champion's weights as from scratch, for a part of the work?

The examples' `test_from` is moved through time. At a first border a champion is trained from scratch. At a later
border more campaigns have become known, and the retraining is done twice on the same rows: from scratch, and
from the champion. Both are measured on all rows from the later border on, which neither has seen.

Every fit's figures are kept under --work: run it again and it goes on; --most lets others have their turn.
"""

import argparse
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    NEXT_INTERACTIONS,
    ROWS,
    TEXTS,
    ExampleSchema,
)
from expectations.storage.atomic import read_json, write_json, write_text
from expectations.storage.datasets import current_folder
from orchestration.home import Home
from tests.benchmarks.machine import described, machine
from training.config.recipe import read_recipe
from training.data.dataset import read_examples
from training.data.split import TEST
from training.evaluation.bootstrap import draw_weights, interval, resampled_metrics
from training.evaluation.evaluate import DRAWS, TestRows
from training.inference.predictor import Predictor
from training.pipeline.fit import fit

HERE = Path(__file__).parent
ARRIVALS = (  # the champion's border, and that of the retraining
    (datetime(2017, 5, 31), datetime(2017, 8, 8)),
    (datetime(2017, 9, 1), datetime(2017, 10, 30)),
)
FIGURES = ("auc", "average_precision", "log_loss", "calibration_error", "ndcg_at_10")
KINDS = CHAMPION, SCRATCH, WARM = "champion", "scratch", "warm"


def main() -> int:
    """Run the fits that are left, then write page and figures."""
    options = _options()
    numbers = range(options.arrivals)
    fits = [
        Fit(options, seed, number, kind) for number in numbers for seed in options.seeds for kind in KINDS
    ]
    left = [fit for fit in fits if not fit.record.exists()]
    for one in left[: options.most]:
        one.run()
    if any(not fit.record.exists() for fit in fits):
        sys.stderr.write(f"{len(left) - options.most} fits are left; run again\n")
        return 1
    found = summary(options, fits)
    write_json(HERE / "results" / "warm_start.json", found)
    write_text(HERE / "warm_start.md", page(found))
    sys.stdout.write(page(found))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.warm_start", description=__doc__)
    parser.add_argument(
        "--examples", type=Path, help="examples folder (default: the home's Complete Journey)"
    )
    parser.add_argument("--recipe", type=Path, help="TOML file (default: the packaged recipe)")
    parser.add_argument("--work", type=Path, help="where fits are kept (default: HOME/benchmarks/warm_start)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument(
        "--arrivals", type=int, choices=(1, 2), default=2, help="how often new campaigns arrive"
    )
    parser.add_argument("--most", type=int, default=10**6, help="fits to run now")
    options = parser.parse_args()
    home = Home.from_environment({})
    options.examples = options.examples or current_folder(home.examples / "complete_journey")
    options.work = options.work or home.root / "benchmarks" / "warm_start"
    return options


class Fit:
    """One fit, its measurement, and the record of both."""

    def __init__(self, options: argparse.Namespace, seed: int, arrival: int, kind: str) -> None:
        self.options, self.seed, self.arrival, self.kind = options, seed, arrival, kind
        self.folder = options.work / f"seed-{seed}" / f"{arrival}-{kind}"
        self.record = self.folder / "record.json"

    def run(self) -> None:
        """Fit and measure; written down at the end, so a fit that was stopped is done again as a whole."""
        examples = self._examples()
        recipe = read_recipe(self.options.recipe).updated(seed=self.seed)
        former = Fit(self.options, self.seed, self.arrival, CHAMPION)
        champion = Path(read_json(former.record)["bundle"]) if self.kind == WARM else None
        before, started = time.process_time(), time.perf_counter()
        places = {"out": self.folder / "out", "work": self.folder / "work", "log_dir": self.folder / "tb"}
        result = fit(examples, recipe, **places, champion=champion)
        cost = {
            "cpu_seconds": time.process_time() - before,
            "seconds": time.perf_counter() - started,
            "stage_seconds": result.seconds,
            "steps": sum(entry["steps"] for entry in result.history),
        }
        facts = {
            "bundle": str(result.bundle),
            "consecutive_warm_starts": result.consecutive_warm_starts,
            "history": result.history,
        }
        write_json(self.record, {**facts, **cost})

    def _examples(self) -> Path:
        """The examples as they were known at this border: the same files, another `test_from`."""
        border = ARRIVALS[self.arrival][self.kind != CHAMPION]
        folder: Path = self.options.work / f"examples-{border.date()}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (ROWS, INTERACTION_HISTORIES, TEXTS, NEXT_INTERACTIONS):
            link, target = folder / name, self.options.examples.absolute() / name
            if target.exists() and not link.exists():
                link.symlink_to(target)
        schema = ExampleSchema.read(self.options.examples)
        replace(schema, test_from=border).write(folder)
        return folder


def summary(options: argparse.Namespace, fits: list[Fit]) -> dict[str, Any]:
    """Figures and costs by arrival: means over the seeds, and the difference of warm and scratch by shoppers."""
    arrivals = []
    for number in range(options.arrivals):
        seeds = [_measured(options, seed, number) for seed in options.seeds]
        arrivals.append(
            {
                "from": ARRIVALS[number][0].date().isoformat(),
                "until": ARRIVALS[number][1].date().isoformat(),
                "rows": seeds[0]["rows"],
                "figures": {
                    kind: _mean([seed["figures"][kind] for seed in seeds]) for kind in seeds[0]["figures"]
                },
                "seeds": [{"figures": seed["figures"], "cost": seed["cost"]} for seed in seeds],
                "spread": _spread([seed["figures"][SCRATCH] for seed in seeds]),
                "warm_minus_scratch": {name: _difference(name, seeds) for name in FIGURES},
                "cost": {kind: _mean([seed["cost"][kind] for seed in seeds]) for kind in (SCRATCH, WARM)},
            }
        )
    return {"machine": machine(), "seeds": options.seeds, "arrivals": arrivals}


def _measured(options: argparse.Namespace, seed: int, arrival: int) -> dict[str, Any]:
    """Champion, scratch and warm on the rows from the later border on."""
    fits = {kind: Fit(options, seed, arrival, kind) for kind in KINDS}
    records = {kind: read_json(one.record) for kind, one in fits.items()}
    data = read_examples(fits[WARM]._examples())
    rows = np.flatnonzero(data.part == TEST)
    moments = data.rows["event_timestamp"]
    new = (moments >= ARRIVALS[arrival][0]).to_numpy() & (data.part != TEST)
    frame = data.rows.iloc[rows]
    test = TestRows(
        label=frame["label"].to_numpy(np.int64),
        query_group_id=frame["query_group_id"].to_numpy(),
        item_id=frame["item_id"].to_numpy(),
        user=np.unique(frame["user_id"].to_numpy(str), return_inverse=True)[1],
    )
    scores = {
        kind: Predictor.load(Path(record["bundle"])).score_examples(data).probability
        for kind, record in records.items()
    }
    figures = {kind: test.metrics(score, 0) for kind, score in scores.items()}
    weights = draw_weights(int(test.user.max()) + 1, draws=DRAWS, seed=0)
    draws = {
        kind: resampled_metrics(test.label, scores[kind], test.query_group_id, test.user, weights)
        for kind in (SCRATCH, WARM)
    }
    return {
        "rows": {
            name: {"rows": int(chosen.sum()), "answered": int(data.labels[chosen].sum())}
            for name, chosen in (
                ("known", (data.part != TEST) & ~new),
                ("new", new),
                ("test", data.part == TEST),
            )
        },
        "figures": {kind: {name: values[name] for name in FIGURES} for kind, values in figures.items()},
        "draws": {name: draws[WARM][name] - draws[SCRATCH][name] for name in FIGURES},
        "cost": {
            kind: {name: records[kind][name] for name in ("steps", "cpu_seconds", "seconds")}
            for kind in (SCRATCH, WARM)
        },
    }


def _difference(name: str, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Warm minus scratch, the mean over the seeds, and its interval over draws of shoppers."""
    values = [seed["figures"][WARM][name] - seed["figures"][SCRATCH][name] for seed in seeds]
    between = interval(np.mean([seed["draws"][name] for seed in seeds], axis=0))
    return {"difference": float(np.mean(values)), "interval": between}


def _mean(values: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


def _spread(values: list[dict[str, float]]) -> dict[str, float | None]:
    """Deviation over the seeds; None where there is one only."""
    several = len(values) > 1
    return {
        name: float(np.std([value[name] for value in values], ddof=1)) if several else None
        for name in values[0]
    }


def page(found: dict[str, Any]) -> str:
    """The figures as a Markdown page."""
    lines = [
        "# Retraining from the champion, beside retraining from scratch",
        "",
        f"`make bench-warm-start`, {described(found['machine'])}. Complete Journey, coupon level; means over "
        f"seeds {', '.join(map(str, found['seeds']))}.",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
    ]
    for arrival in found["arrivals"]:
        lines += ["", *_section(arrival)]
    return "\n".join([*lines, "", *_words(found["arrivals"]), ""])


def _section(arrival: dict[str, Any]) -> list[str]:
    rows, cost = arrival["rows"], arrival["cost"]
    lines = [
        f"## Campaigns from {arrival['from']} on became known; measured from {arrival['until']} on",
        "",
        ", ".join(
            f"{rows[name]['rows']:,} rows {what} ({rows[name]['answered']} answered)"
            for name, what in (("known", "known before"), ("new", "new"), ("test", "to measure on"))
        )
        + ".",
        "",
        "| | the champion itself | from scratch | from the champion | difference, 95 % (shoppers drawn) | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name in FIGURES:
        values = " | ".join(f"{arrival['figures'][kind][name]:.4f}" for kind in (CHAMPION, SCRATCH, WARM))
        difference = arrival["warm_minus_scratch"][name]
        low, high = difference["interval"]
        spread = arrival["spread"][name]
        lines.append(
            f"| {name.replace('_', ' ')} | {values} | {difference['difference']:+.4f} [{low:+.4f}, {high:+.4f}] | "
            f"{'' if spread is None else f'{spread:.4f}'} |"
        )
    for name, unit in (("steps", "steps"), ("cpu_seconds", "processor seconds"), ("seconds", "seconds")):
        scratch, warm = cost[SCRATCH][name], cost[WARM][name]
        lines.append(f"| {unit} | | {scratch:,.0f} | {warm:,.0f} | {warm / scratch:.0%} | |")
    return lines


def _words(arrivals: list[dict[str, Any]]) -> list[str]:
    """What the tables say, in sentences that hold whatever the figures are."""
    lines = []
    for arrival in arrivals:
        differing = [
            name.replace("_", " ")
            for name, values in arrival["warm_minus_scratch"].items()
            if not values["interval"][0] <= 0 <= values["interval"][1]
        ]
        share = arrival["cost"][WARM]["cpu_seconds"] / arrival["cost"][SCRATCH]["cpu_seconds"]
        steps = arrival["cost"][WARM]["steps"] / arrival["cost"][SCRATCH]["steps"]
        lines.append(
            f"Campaigns until {arrival['until']}: {steps:.0%} of the steps and {share:.0%} of the processor time; "
            + (
                f"beyond noise differ: {', '.join(differing)}."
                if differing
                else "no figure differs beyond noise."
            )
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
