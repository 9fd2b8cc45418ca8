"""Training g's networks: a binary loss on each row, and a listwise loss within query groups.

Most rows of an epoch are of query groups without any positive; of those with one, some whole groups are drawn for
each step, so that g learns what tells a user's candidates apart and not only users.
"""

import numpy as np
from torch import Tensor

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.columns import Columns
from training.data.sampling import downsample_negatives, tabular_batches, whole_query_groups
from training.models.losses import binary_loss, listwise_loss
from training.models.tabular import TabularEnsemble

GROUPED_ROWS = 1 << 20  # of more rows than these, the query groups of the listwise loss are a sample


class TabularObjective:
    """Batches and loss of training g's networks.

    Args:
        collator: makes the features of rows.
        columns: of all rows.
        rows: (N,) row numbers to learn from.
        recipe: the settings.
        device: where the networks are.
    """

    def __init__(
        self, collator: Collator, columns: Columns, rows: np.ndarray, recipe: Recipe, device: str
    ) -> None:
        self.collator, self.labels, self.rows, self.recipe = collator, columns["label"], rows, recipe
        self.device = device
        grouped = whole_query_groups(columns, rows, GROUPED_ROWS)
        kept, self._starts = mixed_query_groups(
            columns.at("label", grouped), columns.at("query_group_id", grouped)
        )
        self._grouped = grouped[kept]
        self._drawn = np.zeros(0, dtype=np.int64)

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's batches."""
        drawn = downsample_negatives(
            self.labels, self.rows, self.recipe.tabular_model.negative_sampling_rate, rng
        )
        return tabular_batches(drawn, self.recipe.tabular_model.batch_size)

    def draw(self, _rows: np.ndarray, rng: np.random.Generator) -> None:
        """Choose the query groups of a step."""
        num_groups = len(self._starts) - 1
        self._drawn = rng.choice(
            num_groups, min(self.recipe.tabular_model.query_groups_per_step, num_groups), replace=False
        )

    def loss(self, tabular: TabularEnsemble, rows: np.ndarray) -> Tensor:
        """The rows' binary loss, plus the drawn query groups' listwise loss by its weight."""
        recipe, groups = self.recipe, self._drawn
        if not len(groups) or recipe.tabular_model.listwise_weight == 0:
            return binary_loss(
                self._logits(tabular, rows), self.labels[rows], recipe.tabular_model.negative_sampling_rate
            )
        rows_of_groups = [self._grouped[self._starts[number] : self._starts[number + 1]] for number in groups]
        grouped = np.concatenate(rows_of_groups)
        group_of_row = np.repeat(np.arange(len(groups)), [len(part) for part in rows_of_groups])
        own_NK, grouped_NK = self._logits(tabular, np.concatenate([rows, grouped])).tensor_split([len(rows)])
        binary = binary_loss(own_NK, self.labels[rows], recipe.tabular_model.negative_sampling_rate)
        return binary + recipe.tabular_model.listwise_weight * listwise_loss(
            grouped_NK, self.labels[grouped], group_of_row, len(groups)
        )

    def _logits(self, tabular: TabularEnsemble, rows: np.ndarray) -> Tensor:
        numbers, codes = self.collator.features(rows)
        logits: Tensor = tabular(numbers.to(self.device), codes.to(self.device))
        return logits


def mixed_query_groups(labels_N: np.ndarray, query_group_id_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The query groups that have both positives and negatives.

    Returns:
        Their rows' places, 0 to N - 1, one group after the other, and (groups + 1,) where each begins.
    """
    _, group_of_row = np.unique(query_group_id_N, return_inverse=True)
    num_positive, size = np.bincount(group_of_row, labels_N), np.bincount(group_of_row)
    mixed = (num_positive > 0) & (num_positive < size)
    kept = np.flatnonzero(mixed[group_of_row])
    return kept[np.argsort(group_of_row[kept], kind="stable")], np.r_[0, size[mixed].cumsum()]
