"""Fine-tuning: f, g and the language model learn together from the labels.

A step's rows belong to a few candidates' texts. Those are read with gradient, and some texts of the interaction
histories too; the vectors of all others are as they were at the end of the last epoch.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.sampling import downsample_negatives, text_batches
from training.language.adapters import NONE
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings
from training.models.additive import AdditiveModel
from training.models.losses import binary_loss


class FinetuningObjective:
    """Batches, loss and learning rates of fine-tuning.

    Args:
        model: f and g.
        encoder: the language model.
        table: the texts with their vectors.
        collator: makes batches of rows.
        labels: of all rows.
        rows: (N,) row numbers to learn from.
        recipe: the settings.
        device: where the modules are.
    """

    def __init__(
        self,
        model: AdditiveModel,
        encoder: TextEncoder,
        table: TextEmbeddings,
        collator: Collator,
        *,
        labels: np.ndarray,
        rows: np.ndarray,
        recipe: Recipe,
        device: str,
    ) -> None:
        self.model, self.encoder, self.table, self.collator = model, encoder, table, collator
        self.labels, self.rows, self.recipe, self.device = labels, rows, recipe, device
        self._with_gradient = np.zeros(0, dtype=np.int64)  # texts that the step under way reads with gradient

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's batches."""
        recipe = self.recipe
        drawn = downsample_negatives(self.labels, self.rows, recipe.finetuning.negative_sampling_rate, rng)
        texts = recipe.finetuning.texts_per_step
        text_id, size = self.collator.text_id, recipe.finetuning.max_rows_per_step
        return text_batches(drawn, text_id, num_texts=texts, size=size, rng=rng)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        """Choose the texts that a step reads with gradient: its candidates and some of its history texts."""
        candidates = np.unique(self.collator.text_id[rows])
        others = np.setdiff1d(self.collator.text_ids(rows), candidates, assume_unique=True)
        count = min(self.recipe.finetuning.history_texts_per_step, len(others))
        self._with_gradient = np.concatenate([candidates, rng.choice(others, count, replace=False)])

    def loss(self, rows: np.ndarray, _rng: np.random.Generator) -> Tensor:
        """Mean binary loss of f + g, plus what the adapter adds."""
        batch, text_ids = self.collator.batch(rows)
        # The language model alone computes in bf16: f tells cosines apart by less than that can hold.
        cuda = torch.autocast("cuda", dtype=torch.bfloat16) if self.device == "cuda" else nullcontext()
        with cuda:
            vectors = self.table.gather(text_ids, self._with_gradient[np.isin(self._with_gradient, text_ids)])
        f_N, g_NK = self.model(batch.to(self.device), vectors)
        loss = binary_loss(
            f_N[:, None] + g_NK, self.labels[rows], self.recipe.finetuning.negative_sampling_rate
        )
        return loss + self.encoder.orthogonal_penalty()

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups: f, g, then the language model by depth, each with its own learning rate."""
        recipe, decay = self.recipe, {"weight_decay": self.recipe.optimizer.weight_decay}
        rate = (
            recipe.finetuning.encoder_learning_rate
            if recipe.encoder.adapter == NONE
            else recipe.finetuning.adapter_learning_rate
        )
        return [
            {
                "params": list(self.model.text_model.parameters()),
                "lr": recipe.finetuning.text_model_learning_rate,
                **decay,
            },
            {
                "params": list(self.model.tabular.parameters()),
                "lr": recipe.finetuning.tabular_model_learning_rate,
                **decay,
            },
            *(
                {"params": values, "lr": multiplier * rate, **decay}
                for multiplier, values in self.encoder.parameters_by_depth(
                    recipe.finetuning.layerwise_decay
                ).items()
            ),
        ]
