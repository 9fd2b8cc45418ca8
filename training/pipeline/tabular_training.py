"""Learning g's networks: each row's answer, and which rows of a list were answered.

Most rows of an epoch are of lists without any answer; of those with one, some whole lists are drawn for each
step, so that g learns what tells a shopper's candidates apart and not only shoppers.
"""

import numpy as np
from torch import Tensor

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.columns import Columns
from training.data.sampling import downsample_negatives, tabular_batches, whole_query_groups
from training.models.losses import binary_loss, listwise_loss
from training.models.tabular import TabularEnsemble

GROUPED_ROWS = 1 << 20  # of more rows than these, the lists within which g learns are a sample


class TabularObjective:
    """Batches and loss of learning g's networks.

    Args:
        collator: makes the features of rows.
        columns: of all rows.
        rows: (N,) row numbers to learn from.
        recipe: the settings.
        device: where the networks are.
    """

    def __init__(
        self,
        collator: Collator,
        columns: Columns,
        rows: np.ndarray,
        recipe: Recipe,
        device: str,
    ) -> None:
        self.collator, self.labels, self.rows, self.recipe = collator, columns["label"], rows, recipe
        self.device = device
        listed = whole_query_groups(columns, rows, GROUPED_ROWS)
        kept, self._starts = mixed_query_groups(
            columns.at("label", listed), columns.at("query_group_id", listed)
        )
        self._listed = listed[kept]
        self._drawn = np.zeros(0, dtype=np.int64)

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's batches."""
        drawn = downsample_negatives(
            self.labels, self.rows, self.recipe.tabular_model.negative_sampling_rate, rng
        )
        return tabular_batches(drawn, self.recipe.tabular_model.batch_size)

    def draw(self, _rows: np.ndarray, rng: np.random.Generator) -> None:
        """Choose the lists of a step."""
        num_lists = len(self._starts) - 1
        self._drawn = rng.choice(
            num_lists, min(self.recipe.tabular_model.query_groups_per_step, num_lists), replace=False
        )

    def loss(self, tabular: TabularEnsemble, rows: np.ndarray) -> Tensor:
        """The rows' binary loss, plus the drawn lists' by its weight."""
        recipe, lists = self.recipe, self._drawn
        if not len(lists) or recipe.tabular_model.listwise_weight == 0:
            return binary_loss(
                self._logits(tabular, rows), self.labels[rows], recipe.tabular_model.negative_sampling_rate
            )
        of_lists = [self._listed[self._starts[number] : self._starts[number + 1]] for number in lists]
        listed = np.concatenate(of_lists)
        which = np.repeat(np.arange(len(lists)), [len(part) for part in of_lists])
        own_NK, listed_NK = self._logits(tabular, np.concatenate([rows, listed])).tensor_split([len(rows)])
        binary = binary_loss(own_NK, self.labels[rows], recipe.tabular_model.negative_sampling_rate)
        return binary + recipe.tabular_model.listwise_weight * listwise_loss(
            listed_NK, self.labels[listed], which, len(lists)
        )

    def _logits(self, tabular: TabularEnsemble, rows: np.ndarray) -> Tensor:
        numbers, codes = self.collator.features(rows)
        logits: Tensor = tabular(numbers.to(self.device), codes.to(self.device))
        return logits


def mixed_query_groups(labels_N: np.ndarray, list_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists that have both answered rows and others.

    Returns:
        Their rows' places, 0 to N - 1, one list after the other, and (lists + 1,) where each begins.
    """
    _, which = np.unique(list_N, return_inverse=True)
    answered, size = np.bincount(which, labels_N), np.bincount(which)
    mixed = (answered > 0) & (answered < size)
    kept = np.flatnonzero(mixed[which])
    return kept[np.argsort(which[kept], kind="stable")], np.r_[0, size[mixed].cumsum()]
