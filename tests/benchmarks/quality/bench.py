"""Every method of `make bench-quality`, trained and scored, each result stored."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from expectations.storage.hashes import file_hash, fingerprint
from tests.benchmarks.harness import Store, training_code
from tests.benchmarks.quality import ablation, baselines, boosted_trees
from tests.benchmarks.quality.ablation import VARIANTS, Variant
from tests.benchmarks.quality.baselines import Ease, popularity, previous_baskets
from tests.benchmarks.quality.boosted_trees import WITHOUT, Features
from tests.benchmarks.training import textbook
from tests.benchmarks.training.textbook import Drawn, Textbook
from training.config.recipe import Recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, VALIDATION
from training.models import boosted_trees as trees

Runs = list[dict[str, np.ndarray]]
"""A method's stored arrays for each seed: "test" and where there are such "validation" probabilities, "seconds"."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a run does.

    Attributes:
        seeds: of every method that draws anything.
        trials: of LightGBM's settings.
        textbook_negatives: before the test part that the textbook learns from, beside all positives.
        textbook_seconds: its wall time for each seed.
        textbook_seeds: how many of the seeds it gets.
        test_negatives: that it is measured on, beside all positives.
        test_query_groups: that its NDCG@10 is measured on.
    """

    seeds: tuple[int, ...] = (7, 8, 9)
    trials: int = 16
    textbook_negatives: int = 2178
    textbook_seconds: float = 240.0
    textbook_seeds: int = 1
    test_negatives: int = 3000
    test_query_groups: int = 40


QUICK = Effort(
    seeds=(7,),
    trials=2,
    textbook_negatives=64,
    textbook_seconds=10.0,
    test_negatives=64,
    test_query_groups=2,
)


@dataclass(frozen=True, kw_only=True)
class TextbookRuns:
    """What the textbook came to.

    Attributes:
        learned: rows that it was given to learn from.
        measured: drawn test rows.
        groups: all rows of some query groups of the test part.
        runs: for each seed "drawn" and "groups", probabilities of those; "rows" and "fit_seconds" of its loop.
    """

    learned: np.ndarray
    measured: Drawn
    groups: np.ndarray
    runs: Runs


class Bench:
    """One run of all methods.

    Args:
        examples: the examples folder.
        covers: which topics each candidate covers, as `baselines.covers_of` finds them.
        later: what is bought after each exposure, as `boosted_trees.bought_later` finds it.
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
        found = dict(self._baselines())
        searched = Variant(name="ours_searched", changes={"early_stopping.refit": False})
        fits = [(variant, seed) for seed in self.effort.seeds for variant in VARIANTS]
        fits.append((searched, self.effort.seeds[0]))
        if self.jobs > 1:
            self._side_by_side(fits)
        for variant in VARIANTS:
            found[variant.name] = [self._fitted(variant, seed) for seed in self.effort.seeds]
        found["ours"][0]["validation"] = self._fitted(*fits[-1])["validation"]
        return found

    def _baselines(self) -> Iterator[tuple[str, Runs]]:
        data, seeds, table = self.data, self.effort.seeds, self.table
        learned = self._arrays(
            "ease_scores", lambda: {"score": Ease(data, self.covers).scores(tell=self.store.tell)}
        )
        ease = learned["score"]
        scores = {"popularity": popularity, "previous_baskets": previous_baskets, "ease": lambda _: ease}
        for name, score in scores.items():
            make = partial(lambda score: baselines.calibrated(data, score(data), seed=seeds[0]), score)
            yield name, [self._arrays(name, make)]
        for name, known in {
            "trees": table,
            "trees_ease": table.beside("user_item_ease", ease),
            "trees_no_user_item": table.without(ablation.USER_ITEM),
            "trees_no_products": table.without(ablation.USER_ITEM + ablation.PRODUCTS),
            "trees_named": boosted_trees.with_named_counts(table),
            "trees_future": boosted_trees.with_future(table, data, self.later),
        }.items():
            yield name, [self._trees(seed, name, known) for seed in seeds]

        def groups(seed: int) -> dict[str, np.ndarray]:
            return {"groups": boosted_trees.campaign_trees(data, table, seed=seed)}

        yield (
            "campaign_trees",
            [self._arrays(f"campaign_trees-{seed}", partial(groups, seed)) for seed in seeds],
        )

    @cached_property
    def table(self) -> Features:
        """Every feature of every row."""
        return boosted_trees.features(self.data)

    @cached_property
    def tuned(self) -> dict[str, Any]:
        """LightGBM's settings."""
        key = self._key(boosted_trees.__file__, trees.__file__)

        def search() -> dict[str, Any]:
            return boosted_trees.tuned_trees(
                self.data,
                self.table,
                trials=self.effort.trials,
                store=self.store.folder / f"tuned-{key}.db",
                seed=self.effort.seeds[0],
            )

        return self.store.record("tuned", key, search)

    def _trees(self, seed: int, name: str, table: Features) -> dict[str, np.ndarray]:
        """Trees with the tuned settings: their number is found anew, as the features differ."""
        settings, left = self.tuned["settings"], table.without(WITHOUT[self.tuned["without"]])

        def search() -> dict[str, np.ndarray]:
            number, scored = boosted_trees.searched_trees(
                self.data, left, settings, seed=self.effort.seeds[0]
            )
            return {"num_trees": np.array(number), "validation": scored}

        searched = self._arrays(f"{name}_searched", search)
        number = int(searched["num_trees"])
        found = self._arrays(
            f"{name}-{seed}",
            lambda: {
                "test": boosted_trees.refitted_trees(self.data, left, settings, num_trees=number, seed=seed)
            },
        )
        return {**found, "validation": searched["validation"]}

    def _side_by_side(self, fits: Sequence[tuple[Variant, int]]) -> None:
        """Make the fits that are not stored yet, several at a time."""
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
                    fit = pool.submit(ablation.trained, variant, self.examples, recipe, work=work)
                    begun[fit] = (f"{variant.name}-{seed}", key)
            for fit in as_completed(begun):
                self.store.arrays(*begun[fit], fit.result)

    def _fitted(self, variant: Variant, seed: int) -> dict[str, np.ndarray]:
        recipe, key, work = self._plan(variant, seed)
        return self.store.arrays(
            f"{variant.name}-{seed}",
            key,
            lambda: ablation.trained(variant, self.examples, recipe, work=work),
        )

    def _plan(self, variant: Variant, seed: int) -> tuple[Recipe, str, Path]:
        """The recipe of a fit, the key that it is stored under, and its folder while it runs."""
        recipe = self.recipe.updated(seed=seed)
        key = self._key(ablation.__file__, training_code(), recipe.as_dict())
        return recipe, key, self.store.folder / f"{variant.name}-{seed}-{key}"

    def textbook(self) -> TextbookRuns:
        """The textbook, on the rows that it can be measured on in time."""
        effort, data = self.effort, self.data
        learned = Drawn.of(data.labels, self.known, negatives=effort.textbook_negatives, seed=0)
        measured = Drawn.of(data.labels, self.test, negatives=effort.test_negatives, seed=1)
        query_group_id = data.rows["query_group_id"].to_numpy()
        groups = textbook.drawn_query_groups(
            data.labels, query_group_id, self.test, count=effort.test_query_groups, seed=2
        )

        def make(seed: int) -> dict[str, np.ndarray]:
            model = Textbook(self.recipe.encoder.name, seed=seed)
            seen, seconds = model.fit(
                data,
                learned.rows,
                sampling_rate=learned.sampling_rate,
                seconds=effort.textbook_seconds,
            )
            self.store.tell(f"textbook: {len(seen)} rows in {seconds:.0f} s, now scoring")
            return {
                "drawn": model.probabilities(data, measured.rows, tell=self.store.tell),
                "groups": model.probabilities(data, groups, tell=self.store.tell),
                "rows": np.array(len(seen)),
                "fit_seconds": np.array(seconds),
            }

        key = self._key(textbook.__file__, self.recipe.encoder.name)
        runs = [
            self.store.arrays(f"textbook-{seed}", key, lambda seed=seed: make(seed))
            for seed in effort.seeds[: effort.textbook_seeds]
        ]
        return TextbookRuns(learned=learned.rows, measured=measured, groups=groups, runs=runs)

    def _arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        key = self._key(baselines.__file__, boosted_trees.__file__, trees.__file__)
        return self.store.arrays(name, key, make)

    def _key(self, *made_by: Any) -> str:
        """Hash of what a result comes from: examples, effort, and files or values."""
        files = [file_hash(Path(part)) if str(part).endswith(".py") else part for part in made_by]
        return fingerprint(self.data.schema.fingerprint, len(self.data.rows), repr(self.effort), *files)
