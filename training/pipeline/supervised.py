"""Learning from labels: first g's networks alone, then f, g and the language model together.

Most rows of an epoch of g's are of query groups without any positive; of those with one, some whole groups are drawn
for each step, so that g learns what tells a user's candidates apart and not only users.

The rows of a fine-tuning step belong to a few candidates' texts. Those are read with gradient, and some texts of the
interaction histories too; the vectors of all others are as they were at the end of the last epoch.
"""

import numpy as np
import torch
from torch import Tensor

from training.data.collate import moved
from training.data.sampling import downsample_negatives, tabular_batches, text_batches, whole_query_groups
from training.inference.batch_scoring import score_rows
from training.language.adapters import NONE
from training.models.losses import binary_loss, listwise_loss
from training.pipeline.context import FitContext
from training.pipeline.trainer import Phase
from training.runtime.device import mixed_precision
from training.runtime.prefetch import Prefetch

MIN_QUERY_GROUPS = 20  # with both outcomes, without which there is no listwise loss
GROUPED_ROWS = 1 << 20  # of more rows than these, the query groups of the listwise loss are a sample


class TabularObjective:
    """Batches and loss of training g's networks on the rows numbered `rows`, (N,)."""

    def __init__(self, context: FitContext, rows: np.ndarray) -> None:
        self.context, self.collator, self.labels, self.rows = context, context.collator, context.labels, rows
        self.settings, self.tabular = context.recipe.tabular_model, context.model.tabular
        self.sampling_rate = context.sampling_rate(rows, self.settings.negatives_per_positive)
        columns = context.data.columns
        grouped = whole_query_groups(columns, rows, GROUPED_ROWS)
        ordered, self._starts = mixed_query_groups(
            columns.at("label", grouped), columns.at("query_group_id", grouped)
        )
        self._grouped = grouped[ordered]
        self.collated = Prefetch(self.collator.features, ahead=context.device == "cuda")
        self._drawn = np.zeros(0, dtype=np.int64)

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's batches."""
        drawn = downsample_negatives(self.labels, self.rows, self.sampling_rate, rng)
        return tabular_batches(drawn, self.settings.batch_size)

    def draw(self, _rows: np.ndarray, rng: np.random.Generator) -> None:
        """Choose the query groups of a step."""
        num_groups = len(self._starts) - 1
        self._drawn = rng.choice(
            num_groups, min(self.settings.query_groups_per_step, num_groups), replace=False
        )

    def loss(self, rows: np.ndarray, _rng: np.random.Generator) -> Tensor:
        """The rows' binary loss, plus the drawn query groups' listwise loss by its weight."""
        weight, groups = self.settings.listwise_weight, self._drawn
        if not len(groups) or weight == 0:
            return self._binary_loss(self._logits(self.collated(rows)), rows)
        rows_of_groups = [self._grouped[self._starts[number] : self._starts[number + 1]] for number in groups]
        grouped = np.concatenate(rows_of_groups)
        group_of_row = np.repeat(np.arange(len(groups)), [len(part) for part in rows_of_groups])
        logits_NK = self._logits(self.collated(rows), self.collator.features(grouped))
        own_NK, grouped_NK = logits_NK.tensor_split([len(rows)])
        weights = self.context.weights_of(grouped)
        listwise = listwise_loss(grouped_NK, self.labels[grouped], weights, group_of_row, len(groups))
        return self._binary_loss(own_NK, rows) + weight * listwise

    def _binary_loss(self, logits_NK: Tensor, rows: np.ndarray) -> Tensor:
        return binary_loss(logits_NK, self.labels[rows], self.context.weights_of(rows), self.sampling_rate)

    def _logits(self, *features: tuple[Tensor, Tensor]) -> Tensor:
        """The logits of rows by their numbers and codes, those of one part after those of another."""
        numbers, codes = (
            torch.cat([moved(part, self.context.device) for part in parts])
            for parts in zip(*features, strict=True)
        )
        logits: Tensor = self.tabular(numbers, codes)
        return logits


def mixed_query_groups(labels_N: np.ndarray, query_group_id_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The query groups that have both positives and negatives; none where they are too few to learn an order from.

    Returns:
        Their rows' places, 0 to N - 1, one group after the other, and (groups + 1,) where each begins.
    """
    _, group_of_row = np.unique(query_group_id_N, return_inverse=True)
    num_positive, size = np.bincount(group_of_row, labels_N), np.bincount(group_of_row)
    mixed = (num_positive > 0) & (num_positive < size)
    if mixed.sum() < MIN_QUERY_GROUPS:
        mixed[:] = False
    rows = np.flatnonzero(mixed[group_of_row])
    return rows[np.argsort(group_of_row[rows], kind="stable")], np.r_[0, size[mixed].cumsum()]


def tabular_phase(context: FitContext, name: str, rows: np.ndarray, *, epochs: int, validate: bool) -> Phase:
    """The phase that trains g alone."""
    settings, model, validation = context.recipe.tabular_model, context.model, context.validation_metrics
    objective = TabularObjective(context, rows)

    def metrics() -> dict[str, float | None]:
        vectors = context.table.vectors
        scores = score_rows(model, context.collator, vectors, validation.rows, tabular_only=True)
        return validation.compute(scores.tabular_logit)

    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    return Phase(
        name=name,
        modules={"model": model},  # f's weights lie in the checkpoint too
        groups=[{"params": list(model.tabular.parameters()), **rates}],
        planned=max(settings.epochs, 1),
        epochs=epochs,
        batches=objective.batches,
        loss=objective.loss,
        validate=metrics if validate else None,
        metric=validation.metric,
        patience=context.recipe.early_stopping.patience,
        before_step=objective.draw,
        prefetch=objective.collated.begin,
    )


class FinetuningObjective:
    """Batches and loss of fine-tuning on the rows numbered `rows`, (N,)."""

    def __init__(self, context: FitContext, rows: np.ndarray) -> None:
        self.model, self.encoder, self.table = context.model, context.encoder, context.table
        self.context, self.collator, self.labels, self.rows = context, context.collator, context.labels, rows
        self.settings = context.recipe.finetuning
        self.sampling_rate = context.sampling_rate(rows, self.settings.negatives_per_positive)
        self._with_gradient = np.zeros(0, dtype=np.int64)  # texts that the step under way reads with gradient
        self.collated = Prefetch(self.collator.batch, ahead=context.device == "cuda")

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's batches."""
        drawn = downsample_negatives(self.labels, self.rows, self.sampling_rate, rng)
        texts, size = self.settings.texts_per_step, self.settings.max_rows_per_step
        return text_batches(drawn, self.collator.text_id, num_texts=texts, size=size, rng=rng)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        """Choose the texts that a step reads with gradient: its candidates and some of its history texts."""
        candidates = np.unique(self.collator.text_id[rows])
        others = np.setdiff1d(self.collator.text_ids(rows), candidates, assume_unique=True)
        count = min(self.settings.history_texts_per_step, len(others))
        self._with_gradient = np.concatenate([candidates, rng.choice(others, count, replace=False)])

    def loss(self, rows: np.ndarray, _rng: np.random.Generator) -> Tensor:
        """Mean binary loss of f + g, plus what the adapter adds."""
        batch, text_ids = self.collated(rows)
        # The language model alone computes in bf16: f tells cosines apart by less than that can hold.
        device = self.context.device
        with mixed_precision(device):
            vectors = self.table.gather(text_ids, self._with_gradient[np.isin(self._with_gradient, text_ids)])
        logits_NK = self.model(batch.to(device), vectors)
        loss = binary_loss(logits_NK, self.labels[rows], self.context.weights_of(rows), self.sampling_rate)
        return loss + self.encoder.orthogonal_penalty()


def finetuning_phase(
    context: FitContext, name: str, rows: np.ndarray, *, epochs: int, validate: bool
) -> Phase:
    """The phase that trains f, g and the language model, by depth, each with its own learning rate."""
    settings, model, encoder = context.recipe.finetuning, context.model, context.encoder
    if epochs:
        context.table.cache_frozen_layers()
    objective = FinetuningObjective(context, rows)
    adapted = context.recipe.encoder.adapter != NONE
    rate = settings.adapter_learning_rate if adapted else settings.encoder_learning_rate
    by_depth = encoder.parameters_by_depth(settings.layerwise_decay)
    return Phase(
        name=name,
        modules={"model": model, "encoder": encoder},
        groups=[
            {"params": list(model.text_model.parameters()), "lr": settings.text_model_learning_rate},
            {"params": list(model.tabular.parameters()), "lr": settings.tabular_model_learning_rate},
            *({"params": values, "lr": multiplier * rate} for multiplier, values in by_depth.items()),
        ],
        planned=max(settings.epochs, 1),
        epochs=epochs,
        batches=objective.batches,
        loss=objective.loss,
        finish=context.refresh_vectors,
        validate=context.metrics if validate else None,
        metric=context.validation_metrics.metric,
        patience=settings.patience,
        validate_start=True,
        after_step=encoder.allocate_ranks,
        before_step=objective.draw,
        prefetch=objective.collated.begin,
    )
