"""Evaluation: all scorers on the same test rows in the same run, with intervals, differences and slices.

The result is JSON-able:

    bundle                 hash of the bundle
    model                  metrics of the model
    zero_shot              of the language model before any fine-tuning: cosine similarity of candidate and history
    popularity             of a ranking by popularity, or by past outcomes; null where neither tells the rows apart
    constant               of the fraction of positives before the test part, for every row
    logistic_regression    of a logistic regression on the same features
    lightgbm               of boosted trees on the same features; null where LightGBM is not installed
    champion               of the model that serves now; null where there is none
    champion_problem       why the champion could not score these rows, or null
    best_approved          of the best model that was approved so far, where that is not the champion, or null
    best_approved_problem  why that could not score these rows, or null
    champion_shortfall     metric -> the champion's minus that of the best approved, when both were scored last, or null
    intervals              metric -> [low, high] of the model, 95 %, users resampled
    paired                 rival -> metric -> {difference, interval}: model minus the other; null without the other
    ladder                 what each part of the model adds (`training.evaluation.ladder`)
    proposal               the cheapest step of the ladder that no dearer one is better than: tabular, frozen, finetuned
    proposal_reason        why, in a sentence
    slices                 name -> metrics of the model; the best baseline there, its AUC, and the model's difference
    curves                 what the plots of the test part are drawn from

Metrics: auc, average_precision, log_loss, calibration_error, ndcg_at_10, hit_rate_at_10, coverage,
num_exposures, num_positive. A metric that is not defined is null.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from tqdm import tqdm

from expectations.errors import BundleError, DataError
from training.config.recipe import Recipe, recipe_from
from training.data.collate import Collator
from training.data.dataset import Examples, read_examples
from training.data.sampling import rows_of
from training.data.split import TEST, TRAIN
from training.evaluation import baselines, metrics
from training.evaluation.bootstrap import (
    LEVEL,
    by_order,
    draw_weights,
    drawn_together,
    interval,
    resampled_metrics,
)
from training.evaluation.ladder import Measured, ladder, proposal, step_probabilities
from training.evaluation.plots import curves
from training.inference.predictor import Predictor
from training.runtime.device import first_device

DRAWS = 200
MOST_VALUES = 20  # of a slice column, the most frequent ones
BASELINES = ("popularity", "constant", "logistic_regression", "lightgbm", "zero_shot")
RIVALS = (*BASELINES, "champion", "best_approved")
NO_LIGHTGBM = "the model was not compared with LightGBM, which is not installed (pip install lightgbm)"


@dataclass(frozen=True, kw_only=True)
class TestRows:
    """The columns of the test part that metrics are computed from."""

    label: np.ndarray
    weight: np.ndarray
    query_group_id: np.ndarray
    item_id: np.ndarray
    user: np.ndarray
    seed: int

    @classmethod
    def of(cls, data: Examples, rows: np.ndarray, seed: int) -> "TestRows":
        """Of some rows of the examples."""
        columns = data.columns.of(rows)
        query_group_id = columns["query_group_id"].to_numpy()
        return cls(
            label=columns["label"].to_numpy(),
            weight=columns["weight"].to_numpy(),
            query_group_id=query_group_id,
            item_id=columns["item_id"].to_numpy(),
            user=drawn_together(columns["user_id"].to_numpy(), query_group_id),
            seed=seed,
        )

    @cached_property
    def draws(self) -> np.ndarray:
        """How often each user is drawn, (R, U)."""
        return draw_weights(int(self.user.max()) + 1, draws=DRAWS, seed=self.seed)

    def metrics(self, probability: np.ndarray, chosen: np.ndarray | None = None) -> dict[str, Any]:
        """All metrics of a scorer on these rows, or on the chosen ones."""
        keep = np.ones(len(self.label), dtype=bool) if chosen is None else chosen
        label, weight, score = self.label[keep], self.weight[keep], probability[keep]
        groups = self.query_group_id[keep]
        return {
            **metrics.metrics_of_probabilities(label, score, groups, weight),
            "coverage": metrics.coverage(self.item_id[keep], score, groups, seed=self.seed),
            "num_exposures": round(float(weight.sum())),
            "num_positive": round(float(weight @ label)),
        }

    def measured(self, probability: np.ndarray) -> Measured:
        """All metrics of a scorer and their draws."""
        draws = resampled_metrics(
            self.label, probability, self.query_group_id, self.user, self.draws, self.weight
        )
        return Measured(metrics=self.metrics(probability), draws=draws)


def evaluate(
    bundle: Path,
    examples: Path,
    *,
    champion: Path | None = None,
    best_approved: Path | None = None,
    champion_shortfall: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a bundle on the test part of an examples folder.

    Args:
        bundle: the bundle's folder.
        examples: the examples folder.
        champion: folder of the bundle that serves now, if any.
        best_approved: folder of the best bundle that was approved so far, where that is not the champion.
        champion_shortfall: by metric, what the champion came to minus the best approved, when both were scored last.
        seed: of the draws, the trees and the order of equal scores.
        progress: whether to show a progress bar.

    Raises:
        BundleError: the bundle is incomplete or altered, misses a feature of the examples, or has learned from rows
            of the test part.
        DataError: the test part has no rows.
    """
    bar = tqdm(total=8, desc="evaluate", disable=not progress or not sys.stderr.isatty(), leave=False)
    predictor, data = Predictor.load(bundle, first_device()), read_examples(examples)
    rows = rows_of(data.part, TEST)
    if not len(rows):
        raise DataError(f"{examples}: no rows in the test part; choose an earlier test_from")
    _require_unseen(predictor, data, rows)
    test = TestRows.of(data, rows, seed)
    found: dict[str, np.ndarray | None] = {}
    problems = {}
    for name, folder in (("champion", champion), ("best_approved", best_approved)):
        found[name], problems[f"{name}_problem"] = _other_bundle(folder, data, rows, name.replace("_", " "))
        bar.update()
    recipe = recipe_from(dict(predictor.manifest.recipe), where="manifest.json")
    found |= _scorers(predictor, recipe, bundle, data, rows, seed, bar)
    measured = {name: test.measured(p) for name, p in found.items() if p is not None}
    bar.update()
    bar.close()
    model = measured["model"]
    steps = {**measured, "finetuned": model}
    asked_for = (recipe.early_stopping.metric, "auc", "log_loss")
    decides = next(name for name in asked_for if model.metrics[name] is not None)
    proposed, reason = proposal(steps, decides)
    return {
        "bundle": predictor.hash,
        "champion_bundle": champion.name if champion and "champion" in measured else None,
        "best_approved_bundle": best_approved.name if best_approved and "best_approved" in measured else None,
        **{name: measured[name].metrics if name in measured else None for name in ("model", *RIVALS)},
        **problems,
        "champion_shortfall": champion_shortfall and dict(champion_shortfall),
        "intervals": {name: interval(values) for name, values in model.draws.items()},
        "paired": {name: model.minus(measured[name]) if name in measured else None for name in RIVALS},
        "ladder": ladder(steps, decides),
        "proposal": proposed,
        "proposal_reason": reason,
        "left_out": [*predictor.manifest.left_out, *([] if "lightgbm" in measured else [NO_LIGHTGBM])],
        "slices": _slices(test, slices(data, rows), found),
        "curves": curves(test.label, {name: p for name, p in found.items() if p is not None}, test.weight),
        "seed": seed,
        "draws": DRAWS,
    }


def _scorers(
    predictor: Predictor, recipe: Recipe, bundle: Path, data: Examples, rows: np.ndarray, seed: int, bar: Any
) -> dict[str, np.ndarray | None]:
    """Probabilities on the test rows of the model, of the ladder's steps below it, and of the baselines."""
    collator = Collator(
        data,
        predictor.transforms,
        served=np.asarray(data.part == TEST),
        lexical=predictor.model.text_model.lexical.logits,
    )
    vectors = baselines.pretrained_vectors(recipe, data.texts, bundle)
    found: dict[str, np.ndarray | None] = dict(
        step_probabilities(
            predictor, bundle, collator, predictor.texts.get(data.texts, cached=False), vectors, rows
        )
    )
    found["model"] = found.pop("finetuned")
    bar.update()
    found["zero_shot"] = baselines.zero_shot(data, collator, vectors, rows, seed)
    bar.update()
    found["popularity"] = baselines.popularity(data, rows, seed)
    found["constant"] = np.full(len(rows), baselines.base_rate(data))
    bar.update()
    found["logistic_regression"] = baselines.logistic_regression(data, collator, rows, seed=seed)
    bar.update()
    found["lightgbm"] = baselines.boosted_trees(data, collator, rows, seed=seed)
    bar.update()
    return found


def _require_unseen(predictor: Predictor, data: Examples, rows: np.ndarray) -> None:
    """Refuse a bundle that has learned from some of the rows: its metrics there would say nothing of what comes.

    Raises:
        BundleError: it has.
    """
    manifest = predictor.manifest
    learned_until = np.datetime64(manifest.data["learned_until"])
    num_seen = int((data.columns.at("event_timestamp", rows) < learned_until).sum())
    if num_seen:
        parent = (
            f"its parent {manifest.parent[:12]}" if manifest.parent else "a bundle that was fitted before it"
        )
        raise BundleError(
            f"bundle {predictor.hash[:12]} has learned from rows until {learned_until}, {num_seen} of the {len(rows)} "
            f"test rows among them; evaluate {parent}, or bring later rows"
        )


def _other_bundle(
    folder: Path | None, data: Examples, rows: np.ndarray, name: str
) -> tuple[np.ndarray | None, str | None]:
    """Another bundle's probabilities, or why it has none."""
    if folder is None:
        return None, None
    try:
        predictor = Predictor.load(folder, first_device())
        _require_unseen(predictor, data, rows)
        return predictor.score_examples(data).probability, None
    except BundleError as error:  # incomplete, altered, made by older code, or from other features
        return None, f"the {name} cannot score these rows: {error}"


def _slices(
    test: TestRows, masks: dict[str, np.ndarray], found: dict[str, np.ndarray | None]
) -> dict[str, dict[str, Any]]:
    """Metrics of the model by slice, and how far its AUC is from that of the best baseline there.

    A difference below 0 has its interval, so wide that one of all slices lies outside its own in 5 % of the cases
    (Dunn 1961: the level is divided among them).
    """
    probability = {name: p for name in ("model", *BASELINES) if (p := found[name]) is not None}
    result = {}
    for name, mask in masks.items():
        label, weight = test.label[mask], test.weight[mask]
        areas = {key: metrics.auc(label, p[mask], weight) for key, p in probability.items()}
        best = max(areas.keys() - {"model"}, key=lambda key: (areas[key] or 0.0, key))
        ours, theirs = areas["model"], areas[best]
        difference, between = None, None
        if ours is not None and theirs is not None:
            difference = ours - theirs
            if difference < 0:
                our_draws, their_draws = (
                    by_order(label, probability[key][mask], test.user[mask], test.draws, weight)["auc"]
                    for key in ("model", best)
                )
                reach = norm.ppf(1 - (1 - LEVEL) / 2 / len(masks)) * float(np.nanstd(our_draws - their_draws))
                between = [difference - reach, difference + reach]
        result[name] = {
            **test.metrics(probability["model"], mask),
            "best_baseline": best,
            "best_baseline_auc": theirs,
            "gain": None if difference is None else {"difference": difference, "interval": between},
        }
    return result


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
