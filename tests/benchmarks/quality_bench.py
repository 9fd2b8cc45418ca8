"""Every method of `make bench-quality`, trained, scored, kept and measured."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expectations.contracts.landing import file_hash, fingerprint, read_json, write_json
from tests.benchmarks import quality_figures, quality_ours, quality_rivals, training_textbook
from tests.benchmarks.quality_ours import FROZEN, OURS, OURS_UNCROSSED, PAST, PAST_UNCROSSED, Variant
from tests.benchmarks.quality_rivals import WITHOUT, Ease, Features, Scored
from tests.benchmarks.training_textbook import Drawn, Textbook
from training.examples import Examples, read_examples
from training.recipe import Recipe
from training.split import TEST, VALIDATION

TRAINING = Path(__file__).parents[2] / "training"
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


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a run does.

    Attributes:
        seeds: of every method that draws anything.
        trials: of LightGBM's settings.
        textbook_others: unanswered rows before the test part that the textbook learns from, beside all answered.
        textbook_seconds: its wall time for each seed.
        textbook_seeds: how many of the seeds it gets.
        test_others: unanswered test rows that it is measured on, beside all answered.
        test_lists: whole test lists that its NDCG@10 is measured on.
    """

    seeds: tuple[int, ...] = (7, 8, 9)
    trials: int = 16
    textbook_others: int = 2178
    textbook_seconds: float = 240.0
    textbook_seeds: int = 1
    test_others: int = 3000
    test_lists: int = 40


class Store:
    """Arrays of finished scorers, on disk.

    Args:
        folder: where they are kept.
        tell: says one line to who watches.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        folder.mkdir(parents=True, exist_ok=True)

    def arrays(self, name: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What `make` made, now or in an earlier run with the same key; its wall time is "seconds"."""
        path = self.folder / f"{name}-{key}.npz"
        if not path.exists():
            start = time.perf_counter()
            made = make()
            made.setdefault("seconds", np.array(time.perf_counter() - start))
            half = path.with_suffix(".half.npz")
            np.savez(half, **made)
            half.rename(path)
            self.tell(f"{name}: {float(made['seconds']):.0f} s")
        with np.load(path) as kept:
            return dict(kept)


class Bench:
    """One run of all methods.

    Args:
        examples: the examples folder.
        covers: which topics each candidate covers, as `quality_rivals.covers_of` finds them.
        recipe: ours.
        effort: how much to do.
        store: finished scorers.
    """

    def __init__(
        self, examples: Path, covers: pd.DataFrame, recipe: Recipe, effort: Effort, store: Store
    ) -> None:
        self.examples, self.covers, self.recipe = examples, covers, recipe
        self.effort, self.store = effort, store
        self.data: Examples = read_examples(examples)
        self.test = np.flatnonzero(self.data.part == TEST)
        self.validation = np.flatnonzero(self.data.part == VALIDATION)
        self.known = np.flatnonzero(self.data.part != TEST)

    def run(self) -> dict[str, Any]:
        """Train and score everything; JSON-able figures."""
        found = dict(self._rivals())
        for variant in (PAST, FROZEN, OURS, PAST_UNCROSSED, OURS_UNCROSSED):
            found[variant.name] = [self._fitted(variant, seed) for seed in self.effort.seeds]
        searched = self._fitted(
            Variant(name="ours_searched", title="ours, not refitted", changes={"refit": False}),
            self.effort.seeds[0],
        )
        found["ours"][0]["validation"] = searched["validation"]
        textbook = self._textbook(found)
        return {**self._facts(found), "textbook": textbook}

    def _rivals(self) -> Iterator[tuple[str, list[dict[str, np.ndarray]]]]:
        data, seeds = self.data, self.effort.seeds
        for name, score in (
            ("popularity", quality_rivals.popularity),
            ("past_baskets", quality_rivals.past_baskets),
        ):
            yield name, [self._arrays(name, lambda score=score: calibrated(data, score(data), seeds[0]))]
        ease = self._arrays("ease_scores", lambda: {"score": self._ease()})["score"]
        yield "ease", [self._arrays("ease", lambda: calibrated(data, ease, seeds[0]))]
        yield "trees", [self._trees(seed, "trees", self.table) for seed in seeds]
        beside = self.table.beside("cross_ease", ease)
        yield "trees_ease", [self._trees(seed, "trees_ease", beside) for seed in seeds]
        uncrossed = self.table.without([quality_ours.CROSS])
        yield "trees_uncrossed", [self._trees(seed, "trees_uncrossed", uncrossed) for seed in seeds]

    @cached_property
    def table(self) -> Features:
        """Every feature of every row."""
        return quality_rivals.features(self.data)

    @cached_property
    def tuned(self) -> dict[str, Any]:
        """LightGBM's settings."""
        path = self.store.folder / f"tuned-{self._key(quality_rivals.__file__)}.json"
        if not path.exists():
            found = quality_rivals.tuned_trees(
                self.data,
                self.table,
                trials=self.effort.trials,
                store=path.with_suffix(".db"),
                seed=self.effort.seeds[0],
            )
            write_json(path, found)
        return dict(read_json(path))

    def _ease(self) -> np.ndarray:
        return Ease(self.data, self.covers).scores(tell=self.store.tell)

    def _trees(self, seed: int, name: str, table: Features) -> dict[str, np.ndarray]:
        """Trees with the tuned settings: their number is found anew, as the features differ."""
        settings, kept = self.tuned["settings"], table.without(WITHOUT[self.tuned["without"]])

        def search() -> dict[str, np.ndarray]:
            number, scored = quality_rivals.searched_trees(
                self.data, kept, settings, seed=self.effort.seeds[0]
            )
            return {"num_trees": np.array(number), "validation": scored}

        searched = self._arrays(f"{name}_searched", search)
        number = int(searched["num_trees"])
        found = self._arrays(
            f"{name}-{seed}",
            lambda: {
                "test": quality_rivals.refitted_trees(self.data, kept, settings, num_trees=number, seed=seed)
            },
        )
        return {**found, "validation": searched["validation"]}

    def _fitted(self, variant: Variant, seed: int) -> dict[str, np.ndarray]:
        recipe = replace(self.recipe, seed=seed)
        key = self._key(quality_ours.__file__, *sorted(TRAINING.glob("*.py")), recipe.as_dict())
        work = self.store.folder / f"{variant.name}-{seed}-{key}"

        def make() -> dict[str, np.ndarray]:
            scored, seconds = quality_ours.trained(variant, self.examples, recipe, work=work)
            return {**plain(scored), "seconds": np.array(seconds)}

        return self.store.arrays(f"{variant.name}-{seed}", key, make)

    def _textbook(self, found: dict[str, list[dict[str, np.ndarray]]]) -> dict[str, Any]:
        """The textbook, and ours and the trees on the rows that it could be measured on in time."""
        effort, data = self.effort, self.data
        learned = Drawn.of(data.labels, self.known, others=effort.textbook_others, seed=0)
        measured = Drawn.of(data.labels, self.test, others=effort.test_others, seed=1)
        lists = data.rows["list_id"].to_numpy()
        whole = training_textbook.drawn_lists(data.labels, lists, self.test, lists=effort.test_lists, seed=2)

        def make(seed: int) -> dict[str, np.ndarray]:
            textbook = Textbook(self.recipe.encoder, seed=seed)
            lesson = textbook.fit(data, learned.rows, share=learned.share, seconds=effort.textbook_seconds)
            self.store.tell(f"textbook: {lesson.rows} rows in {lesson.seconds:.0f} s, now scoring")
            return {
                "drawn": textbook.probabilities(data, measured.rows, tell=self.store.tell),
                "lists": textbook.probabilities(data, whole, tell=self.store.tell),
                "rows": np.array(lesson.rows),
                "fit_seconds": np.array(lesson.seconds),
            }

        key = self._key(training_textbook.__file__, self.recipe.encoder)
        runs = [
            self.store.arrays(f"textbook-{seed}", key, lambda seed=seed: make(seed))
            for seed in effort.seeds[: effort.textbook_seeds]
        ]
        every = training_textbook.as_if_all(data.labels, measured)
        place = np.zeros(len(data.rows), dtype=np.int64)
        place[self.test] = np.arange(len(self.test))
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
            "seeds": effort.textbook_seeds,
            "rows": len(learned.rows),
            "rows_seen": [int(run["rows"]) for run in runs],
            "seconds": [float(run["fit_seconds"]) for run in runs],
            "test_rows": len(measured.rows),
            "test_positive": int(data.labels[measured.rows].sum()),
            "test_lists": len(np.unique(lists[whole])),
            "figures": figures,
            "paired": against[0] | {"ndcg_at_10": against[1]["ndcg_at_10"]},
        }

    def _facts(self, found: dict[str, list[dict[str, np.ndarray]]]) -> dict[str, Any]:
        data, effort = self.data, self.effort
        test = quality_figures.Rows.of(data, self.test)
        validation = quality_figures.Rows.of(data, self.validation)
        scores = {name: [run["test"] for run in runs] for name, runs in found.items()}
        all_figures = {name: quality_figures.measured(test, by_seed) for name, by_seed in scores.items()}
        campaigns = {
            name: quality_figures.campaign_level(
                test, scores[name], validation, found[name][0].get("validation")
            )
            for name in TITLES
        }
        return {
            "examples": {
                "fingerprint": data.schema.fingerprint,
                "rows": {part: int((data.part == part).sum()) for part in np.unique(data.part)},
                "answered": {
                    part: int(data.labels[data.part == part].sum()) for part in np.unique(data.part)
                },
                "test_from": str(data.schema.test_from),
            },
            "seeds": list(effort.seeds),
            "recipe": self.recipe.as_dict(),
            "titles": TITLES,
            "tabular": TABULAR,
            "tuned": self.tuned,
            "figures": {
                name: {
                    "seconds": float(np.mean([run["seconds"] for run in found[name]])),
                    **all_figures[name].facts(),
                }
                for name in found
            },
            "paired": {
                name: quality_figures.difference(all_figures["ours"], all_figures[name])
                for name in TITLES
                if name != "ours"
            },
            "campaign": {
                name: {how: one.facts() for how, one in ways.items()} for name, ways in campaigns.items()
            },
            "text_only": {
                name: quality_figures.difference(all_figures["ours_uncrossed"], all_figures[name])
                for name in ("past_uncrossed", "trees_uncrossed")
            },
            "slices": quality_figures.by_slice(
                data, self.test, {name: scores[name] for name in ("past_baskets", "trees", "past", "ours")}
            ),
        }

    def _arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return self.store.arrays(name, self._key(quality_rivals.__file__), make)

    def _key(self, *made_by: Any) -> str:
        """Hash of what a result comes from: examples, effort, and files or values."""
        files = [file_hash(Path(part)) if str(part).endswith(".py") else part for part in made_by]
        return fingerprint(self.data.schema.fingerprint, len(self.data.rows), repr(self.effort), *files)


def calibrated(data: Examples, score: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """A label-free score as probabilities of both parts."""
    return plain(quality_rivals.calibrated(data, score, seed=seed))


def plain(scored: Scored) -> dict[str, np.ndarray]:
    """Arrays to keep."""
    kept = {"test": scored.test, "validation": scored.validation}
    return {name: values for name, values in kept.items() if values is not None}
