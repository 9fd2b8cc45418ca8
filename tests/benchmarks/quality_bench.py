"""Every method of `make bench-quality`, trained, scored, kept and measured."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.next_interactions import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from expectations.storage.atomic import read_json, write_json
from expectations.storage.hashes import file_hash, fingerprint
from tests.benchmarks import quality_ceilings, quality_ours, quality_rivals, quality_trees, training_textbook
from tests.benchmarks.after_demo import Store, training_code
from tests.benchmarks.quality_ours import (
    FROZEN,
    OURS,
    OURS_TOLD,
    OURS_UNCROSSED,
    PAST,
    PAST_TOLD,
    PAST_UNCROSSED,
    Variant,
)
from tests.benchmarks.quality_rivals import Ease, Scored
from tests.benchmarks.quality_trees import WITHOUT, Features
from tests.benchmarks.training_textbook import Drawn, Textbook
from training.config.recipe import Recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, VALIDATION
from training.models import boosted_trees as trees

Runs = list[dict[str, np.ndarray]]
"""A method's kept arrays for each seed: "test" and where there are such "validation" probabilities, "seconds"."""


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


@dataclass(frozen=True, kw_only=True)
class TextbookRuns:
    """What the textbook came to.

    Attributes:
        learned: rows that it was given to learn from.
        measured: drawn test rows.
        whole: all rows of some test lists.
        runs: for each seed "drawn" and "lists", probabilities of those; "rows" and "fit_seconds" of its loop.
    """

    learned: np.ndarray
    measured: Drawn
    whole: np.ndarray
    runs: Runs


class Bench:
    """One run of all methods.

    Args:
        examples: the examples folder.
        covers: which topics each candidate covers, as `quality_rivals.covers_of` finds them.
        later: what is bought after each exposure, as `quality_ceilings.bought_later` finds it.
        recipe: ours.
        effort: how much to do.
        store: finished scorers.
        jobs: how many of our fits run at a time, each in a process of its own where it is more than one.
    """

    def __init__(
        self,
        examples: Path,
        covers: pd.DataFrame,
        later: pd.DataFrame,
        recipe: Recipe,
        effort: Effort,
        store: Store,
        *,
        jobs: int = 1,
    ) -> None:
        self.examples, self.covers, self.later, self.recipe = examples, covers, later, recipe
        self.effort, self.store, self.jobs = effort, store, jobs
        self.data: Examples = read_examples(examples)
        self.test = np.flatnonzero(self.data.part == TEST)
        self.validation = np.flatnonzero(self.data.part == VALIDATION)
        self.known = np.flatnonzero(self.data.part != TEST)

    def run(self) -> dict[str, Runs]:
        """Train and score every method but the textbook: its runs, one for each seed."""
        found = dict(self._rivals())
        searched = Variant(
            name="ours_searched", title="ours, not refitted", changes={"early_stopping.refit": False}
        )
        variants = (OURS, FROZEN, OURS_UNCROSSED, OURS_TOLD, PAST, PAST_UNCROSSED, PAST_TOLD)
        fits = [(variant, seed) for seed in self.effort.seeds for variant in variants]
        fits.append((searched, self.effort.seeds[0]))
        if self.jobs > 1:
            self._side_by_side(fits)
        for variant in variants:
            found[variant.name] = [self._fitted(variant, seed) for seed in self.effort.seeds]
        found["ours"][0]["validation"] = self._fitted(*fits[-1])["validation"]
        return found

    def _rivals(self) -> Iterator[tuple[str, Runs]]:
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
        for name, table in (
            ("trees_uncrossed", self.table.without(quality_ours.USER_ITEM)),
            ("trees_told", self.table.without(quality_ours.USER_ITEM + quality_ours.COVERED)),
            ("trees_named", quality_ceilings.with_named_counts(self.table)),
            ("trees_future", quality_ceilings.with_future(self.table, data, self.later)),
        ):
            yield name, [self._trees(seed, name, table) for seed in seeds]
        yield "campaign_trees", [self._campaign_trees(seed) for seed in seeds]

    @cached_property
    def table(self) -> Features:
        """Every feature of every row."""
        return quality_trees.features(self.data)

    @cached_property
    def tuned(self) -> dict[str, Any]:
        """LightGBM's settings."""
        path = self.store.folder / f"tuned-{self._key(quality_trees.__file__, trees.__file__)}.json"
        if not path.exists():
            found = quality_trees.tuned_trees(
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
            number, scored = quality_trees.searched_trees(
                self.data, kept, settings, seed=self.effort.seeds[0]
            )
            return {"num_trees": np.array(number), "validation": scored}

        searched = self._arrays(f"{name}_searched", search)
        number = int(searched["num_trees"])
        found = self._arrays(
            f"{name}-{seed}",
            lambda: {
                "test": quality_trees.refitted_trees(self.data, kept, settings, num_trees=number, seed=seed)
            },
        )
        return {**found, "validation": searched["validation"]}

    def _campaign_trees(self, seed: int) -> dict[str, np.ndarray]:
        def make() -> dict[str, np.ndarray]:
            return {"lists": quality_trees.campaign_trees(self.data, self.table, seed=seed)}

        return self._arrays(f"campaign_trees-{seed}", make)

    def _side_by_side(self, fits: Sequence[tuple[Variant, int]]) -> None:
        """Make the fits that are not kept yet, several at a time."""
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        with ProcessPoolExecutor(
            self.jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(threads,),
        ) as pool:
            begun = {}
            for variant, seed in fits:
                recipe, key, work = self._plan(variant, seed)
                if not self.store.has(f"{variant.name}-{seed}", key):
                    fit = pool.submit(quality_ours.trained, variant, self.examples, recipe, work=work)
                    begun[fit] = (f"{variant.name}-{seed}", key)
            for fit in as_completed(begun):
                self.store.arrays(*begun[fit], lambda fit=fit: _kept(*fit.result()))

    def _fitted(self, variant: Variant, seed: int) -> dict[str, np.ndarray]:
        recipe, key, work = self._plan(variant, seed)
        return self.store.arrays(
            f"{variant.name}-{seed}",
            key,
            lambda: _kept(*quality_ours.trained(variant, self.examples, recipe, work=work)),
        )

    def _plan(self, variant: Variant, seed: int) -> tuple[Recipe, str, Path]:
        """The recipe of a fit, the key that it is kept under, and its folder while it runs."""
        recipe = self.recipe.updated(seed=seed)
        key = self._key(quality_ours.__file__, training_code(), recipe.as_dict())
        return recipe, key, self.store.folder / f"{variant.name}-{seed}-{key}"

    def textbook(self) -> "TextbookRuns":
        """The textbook, on the rows that it can be measured on in time."""
        effort, data = self.effort, self.data
        learned = Drawn.of(data.labels, self.known, others=effort.textbook_others, seed=0)
        measured = Drawn.of(data.labels, self.test, others=effort.test_others, seed=1)
        lists = data.rows["query_group_id"].to_numpy()
        whole = training_textbook.drawn_lists(data.labels, lists, self.test, lists=effort.test_lists, seed=2)

        def make(seed: int) -> dict[str, np.ndarray]:
            textbook = Textbook(self.recipe.encoder.name, seed=seed)
            lesson = textbook.fit(data, learned.rows, share=learned.share, seconds=effort.textbook_seconds)
            self.store.tell(f"textbook: {lesson.rows} rows in {lesson.seconds:.0f} s, now scoring")
            return {
                "drawn": textbook.probabilities(data, measured.rows, tell=self.store.tell),
                "lists": textbook.probabilities(data, whole, tell=self.store.tell),
                "rows": np.array(lesson.rows),
                "fit_seconds": np.array(lesson.seconds),
            }

        key = self._key(training_textbook.__file__, self.recipe.encoder.name)
        runs = [
            self.store.arrays(f"textbook-{seed}", key, lambda seed=seed: make(seed))
            for seed in effort.seeds[: effort.textbook_seeds]
        ]
        return TextbookRuns(learned=learned.rows, measured=measured, whole=whole, runs=runs)

    def _arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        key = self._key(quality_rivals.__file__, quality_trees.__file__, trees.__file__)
        return self.store.arrays(name, key, make)

    def _key(self, *made_by: Any) -> str:
        """Hash of what a result comes from: examples, effort, and files or values."""
        files = [file_hash(Path(part)) if str(part).endswith(".py") else part for part in made_by]
        return fingerprint(self.data.schema.fingerprint, len(self.data.rows), repr(self.effort), *files)


def calibrated(data: Examples, score: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """A label-free score as probabilities of both parts."""
    return plain(quality_rivals.calibrated(data, score, seed=seed))


def _kept(scored: Scored, seconds: float) -> dict[str, np.ndarray]:
    return {**plain(scored), "seconds": np.array(seconds)}


def plain(scored: Scored) -> dict[str, np.ndarray]:
    """Arrays to keep."""
    kept = {"test": scored.test, "validation": scored.validation}
    return {name: values for name, values in kept.items() if values is not None}
