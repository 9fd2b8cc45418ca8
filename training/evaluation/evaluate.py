"""Evaluation: all scorers on the same test rows in the same run, with intervals, differences and slices.

The result is JSON-able:

    bundle            hash of the bundle
    model             metrics of the model
    zero_shot         of the language model before any fine-tuning: cosine similarity of candidate and history
    lightgbm          of boosted trees on the same features; null where LightGBM is not installed
    popularity        of a ranking by popularity
    champion          of the model that serves now; null where there is none
    champion_problem  why the champion could not score these rows, or null
    intervals         metric -> [low, high] of the model, 95 %, users resampled
    paired            "lightgbm" and "champion" -> metric -> {difference, interval}: model minus the other
    slices            name -> metrics of the model
    curves            what the plots of the test part are drawn from

Metrics: auc, average_precision, log_loss, calibration_error, ndcg_at_10, hit_rate_at_10, coverage,
num_exposures, num_positive. A metric that is not defined is null.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from expectations.contracts.bundle import verify_bundle
from expectations.errors import BundleError, DataError
from training.config.recipe import recipe_from
from training.data.collate import Collator
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN
from training.evaluation import metrics
from training.evaluation.baselines import (
    boosted_trees,
    fitting_rows,
    popularity_score,
    pretrained_vectors,
    probabilities,
    zero_shot_score,
)
from training.evaluation.bootstrap import draw_weights, interval, paired_differences, resampled_metrics
from training.evaluation.plots import curves
from training.inference.predictor import Predictor

DRAWS = 200
MOST_VALUES = 20  # of a slice column, the most frequent ones


@dataclass(frozen=True, kw_only=True)
class TestRows:
    """The columns of the test part that metrics are computed from."""

    label: np.ndarray
    query_group_id: np.ndarray
    item_id: np.ndarray
    user: np.ndarray

    @classmethod
    def of(cls, data: Examples, rows: np.ndarray) -> "TestRows":
        """Of some rows of the examples."""
        columns = data.columns.of(rows)
        return cls(
            label=columns["label"].to_numpy(np.int64),
            query_group_id=columns["query_group_id"].to_numpy(),
            item_id=columns["item_id"].to_numpy(),
            user=np.unique(columns["user_id"].to_numpy(str), return_inverse=True)[1],
        )

    def metrics(self, probability: np.ndarray, seed: int, chosen: np.ndarray | None = None) -> dict[str, Any]:
        """All metrics of a scorer on these rows, or on the chosen ones."""
        keep = np.ones(len(self.label), dtype=bool) if chosen is None else chosen
        label, score, groups = self.label[keep], probability[keep], self.query_group_id[keep]
        return {
            **metrics.metrics_of_probabilities(label, score, groups),
            "coverage": metrics.coverage(self.item_id[keep], score, groups, seed=seed),
            "num_exposures": len(label),
            "num_positive": int(label.sum()),
        }


def evaluate(
    bundle: Path, examples: Path, *, champion: Path | None = None, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Evaluate a bundle on the test part of an examples folder.

    Args:
        bundle: the bundle's folder.
        examples: the examples folder.
        champion: folder of the bundle that serves now, if any.
        seed: of the draws, the trees and the order of equal scores.
        progress: whether to show a progress bar.

    Raises:
        BundleError: the bundle, or the champion, is incomplete or altered, or misses a feature of the
        examples. DataError: the test part has no rows.
    """
    predictor, data = Predictor.load(bundle), read_examples(examples)
    rows = np.flatnonzero(data.part == TEST)
    if not len(rows):
        raise DataError(f"{examples}: no rows in the test part; choose an earlier test_from")
    test = TestRows.of(data, rows)
    bar = tqdm(total=5, desc="evaluate", disable=not progress or not sys.stderr.isatty(), leave=False)
    model = predictor.score_examples(data, data.part == TEST).probability
    bar.update()
    found = {"model": model, **_baselines(predictor, bundle, data, rows, seed, bar)}
    found["champion"], problem = _champion(champion, data)
    measured = {name: None if p is None else test.metrics(p, seed) for name, p in found.items()}
    weights = draw_weights(int(test.user.max()) + 1, draws=DRAWS, seed=seed)
    draws = {
        name: resampled_metrics(test.label, p, test.query_group_id, test.user, weights)
        for name in ("model", "lightgbm", "champion")
        if (p := found[name]) is not None
    }
    bar.update()
    bar.close()
    return {
        "bundle": predictor.hash,
        "champion_bundle": None if champion is None or problem else champion.name,
        **{name: measured[name] for name in ("zero_shot", "model", "lightgbm", "popularity", "champion")},
        "champion_problem": problem,
        "intervals": {name: interval(values) for name, values in draws["model"].items()},
        "paired": {
            name: paired_differences(measured["model"], measured[name], draws["model"], draws[name])  # type: ignore[arg-type]
            if name in draws
            else None
            for name in ("lightgbm", "champion")
        },
        "slices": {name: test.metrics(model, seed, mask) for name, mask in slices(data, rows).items()},
        "curves": curves(test.label, {name: p for name, p in found.items() if p is not None}),
        "seed": seed,
        "draws": DRAWS,
    }


def _baselines(
    predictor: Predictor, bundle: Path, data: Examples, rows: np.ndarray, seed: int, bar: Any
) -> dict[str, np.ndarray | None]:
    """Probabilities of the scorers that need no other bundle on the test rows."""
    found: dict[str, np.ndarray | None] = {}
    recipe = recipe_from(dict(predictor.manifest.recipe), where="manifest.json")
    fit_on, sampling_rate = fitting_rows(data, seed)
    labels = data.labels[fit_on]
    collator = Collator(data, predictor.transforms)
    vectors = pretrained_vectors(recipe, data.texts, bundle, predictor.texts.known)
    both = zero_shot_score(collator, vectors, np.concatenate([rows, fit_on]))
    found["zero_shot"] = probabilities(both[: len(rows)], both[len(rows) :], labels, sampling_rate)
    bar.update()
    popular = popularity_score(data, fit_on)
    found["popularity"] = probabilities(popularity_score(data, rows), popular, labels, sampling_rate)
    bar.update()
    found["lightgbm"] = boosted_trees(data, predictor.transforms, rows, seed=seed)
    bar.update()
    return found


def _champion(champion: Path | None, data: Examples) -> tuple[np.ndarray | None, str | None]:
    """The champion's probabilities, or why it has none; an altered champion is an error."""
    if champion is None:
        return None, None
    verify_bundle(champion)
    try:
        return Predictor.load(champion).score_examples(data).probability, None
    except BundleError as error:  # made by older code, or from other features
        return None, f"the champion cannot score these rows: {error}"


def slices(data: Examples, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Masks over `rows` by name: cold-start, light, medium and heavy users, and each value of the slice columns.

    A cold-start user has no past event. The others are parted at the terciles of the training part's activity,
    so a group may be empty later.
    """
    every = slice(None)
    activity = np.nan_to_num(data.columns.series(data.schema.activity, every).to_numpy(np.float64))
    known = activity[(data.part == TRAIN) & (activity > 0)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if known.size else (0.0, 0.0)
    here = activity[rows]
    masks = {
        "cold-start users": here <= 0,
        "light users": (here > 0) & (here <= low),
        "medium users": (here > low) & (here <= high),
        "heavy users": (here > 0) & (here > high),
    }
    for column in data.schema.slices:
        values = data.columns.series(column, rows)
        for value in values.value_counts().index[:MOST_VALUES]:
            masks[f"{column}={value}"] = (values == value).to_numpy(dtype=bool)
    return masks
