"""Starting from the champion: a periodic retraining learns what is new, not everything once more.

The champion's weights (language model, f, g) are where training begins, its transforms are kept, so that the
weights mean what they meant. g learns from all rows for a fraction of the recipe's epochs (`epoch_fraction`). f and the
language model, which soon know few positives by heart, learn from the new rows and replay as many old
ones, so that these are not forgotten (Rolnick et al. 2019, "Experience Replay for Continual Learning").

The champion has learned from every row before its test part began, so the rows from then on are all that can
still tell how good it is: the validation part is of them alone. Where most positives are new there is little to
begin with, and after some warm starts in a row (`warm_start.max_consecutive`) weights remember a past that is over
(Ash & Adams 2020, "On Warm-Starting Neural Network Training"): both times the fit is from scratch.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from expectations.contracts.bundle import verify_bundle
from expectations.errors import BundleError
from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.evaluation.baselines import pretrained_vectors
from training.inference.bundle import ENCODER
from training.inference.predictor import Predictor
from training.language.text_embeddings import TextEmbeddings
from training.models.additive import AdditiveModel

MIN_ROWS_PER_CLASS = 20  # positives, and negatives, without which a validation part tells nothing
# Settings in which champion and recipe may differ.
FREE_SETTINGS = ("seed", "warm_start.epoch_fraction", "warm_start.max_consecutive")


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The bundle that a fit begins with: its folder, and what it holds in memory."""

    folder: Path
    predictor: Predictor

    @classmethod
    def load(cls, folder: Path) -> "Champion | str":
        """The champion, or why it cannot be begun with.

        Raises:
            BundleError: it was altered.
        """
        verify_bundle(folder)
        try:
            return cls(folder=folder, predictor=Predictor.load(folder))
        except BundleError as error:  # made by older code
            return str(error)

    @property
    def encoder(self) -> str:
        """Where its language model lies."""
        return str(self.folder / ENCODER)

    @property
    def consecutive_warm_starts(self) -> int:
        """How many fits in a row, it the last of them, began with a champion."""
        return self.predictor.manifest.consecutive_warm_starts

    @cached_property
    def learned_until(self) -> np.datetime64 | None:
        """Everything that it has learned from lies before this time; None where it does not say."""
        until = self.predictor.manifest.data.get("learned_until")
        return None if until is None else np.datetime64(pd.Timestamp(until), "us")

    def incompatibility(self, data: Examples, recipe: Recipe) -> str | None:
        """Why a fit to these examples cannot begin with it, or None."""
        manifest, schema = self.predictor.manifest, data.schema
        if manifest.source != schema.source:
            return f"it was trained on {manifest.source}, these are examples of {schema.source}"
        for kind in ("numeric", "categorical"):
            before, now = list(getattr(manifest, kind)), list(getattr(schema, kind))
            if before != now:
                changed = sorted(set(before) ^ set(now)) or ["their order"]
                return f"the {kind} features differ: {', '.join(changed[:5])}"
        for name, value in recipe.flat().items():
            was = _setting(manifest.recipe, name)
            if name not in FREE_SETTINGS and was != value:
                return f"its recipe differs: {name} was {was!r} and is {value!r}"
        if self.consecutive_warm_starts >= recipe.warm_start.max_consecutive:
            return f"{self.consecutive_warm_starts} fits in a row began with a champion: max_consecutive is reached"
        return self._too_little_new(data, recipe)

    def _too_little_new(self, data: Examples, recipe: Recipe) -> str | None:
        if self.learned_until is None:
            return "it does not say until when it has learned"
        after = self.after(data)
        labels = after.labels[after.part == VALIDATION]
        num_positive = int(labels.sum())
        if min(num_positive, len(labels) - num_positive) < MIN_ROWS_PER_CLASS:
            return (
                f"{len(labels)} rows of the validation part are newer than what it has learned from (until "
                f"{self.learned_until}), {num_positive} of them positive: too few to tell how good it is"
            )
        before_test = data.part != TEST
        is_new = self._new(data)
        known, new = (int(data.labels[before_test & rows].sum()) for rows in (~is_new, is_new))
        if new > known:
            return f"most positives are new: {new}, beside {known} that it has learned from"
        if not recipe.early_stopping.refit and not self.has_new(after):
            return "all new rows are in the validation part, and without refit they would not be learned from"
        return None

    def after(self, data: Examples) -> Examples:
        """The examples, with those rows of the validation part that it has learned from in the training part."""
        seen = (data.part == VALIDATION) & ~self._new(data)
        part = data.part.copy()
        part[seen] = TRAIN
        return replace(data, part=part)

    def has_new(self, data: Examples) -> bool:
        """Whether the training part has rows that it has not learned from."""
        return bool((self._new(data) & (data.part == TRAIN)).any())

    def with_replay(self, data: Examples, rows: np.ndarray, seed: int) -> np.ndarray:
        """Of some rows, those that it has not learned from, and as many that it has (replay), drawn by a seed."""
        new = self._new(data)[rows]
        known = rows[~new]
        rng = np.random.default_rng(seed)
        return np.sort(np.r_[rows[new], rng.choice(known, min(len(known), int(new.sum())), replace=False)])

    def _new(self, data: Examples) -> np.ndarray:
        return np.asarray(data.columns["event_timestamp"] >= self.learned_until)

    def texts_before(self, texts: list[str], recipe: Recipe) -> Tensor:
        """Vectors of texts, (T, E), by the recipe's language model as it was before any fine-tuning."""
        return pretrained_vectors(recipe, texts, self.folder)

    def fill(self, table: TextEmbeddings, texts: list[str]) -> None:
        """Bring the table's vectors to what its language model says; only texts that are new to it are read."""
        places = np.array([self.predictor.texts.known.get(text, -1) for text in texts])
        table.vectors.copy_(self.predictor.texts.vectors[torch.from_numpy(places).clamp_min(0)])
        table.refresh(np.flatnonzero(places < 0))

    def model(self) -> AdditiveModel:
        """A copy of its f and g, what they know of topics and users with them, not calibrated."""
        model = copy.deepcopy(self.predictor.model)
        model.slope.fill_(1)
        model.intercept.fill_(0)
        return model.eval()


def _setting(recipe: Mapping[str, Any], name: str) -> Any:
    """A setting of a manifest's recipe by its dotted name; None where it has none."""
    section, _, setting = name.rpartition(".")
    values = recipe.get(section) if section else recipe
    return values.get(setting) if isinstance(values, Mapping) else None


def shortened(recipe: Recipe) -> Recipe:
    """The recipe of a fit that begins with a champion: a fraction of the epochs, at least one where there were any."""
    fraction = recipe.warm_start.epoch_fraction
    return recipe.updated(
        pretraining={"next_interaction_epochs": 0},
        tabular_model={"epochs": math.ceil(fraction * recipe.tabular_model.epochs)},
        finetuning={"epochs": math.ceil(fraction * recipe.finetuning.epochs)},
    )
