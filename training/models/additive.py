"""The additive model: p = σ(f(a, c) + g(b, c)), its two parts kept apart to the end."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.collate import Batch
from training.data.transforms import Transforms
from training.models.boosted_trees import Trees
from training.models.tabular import TabularEnsemble
from training.models.text_match import TextMatch


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the model says of N rows.

    Attributes:
        text_logit: (N,) logit part of words and context.
        tabular_logit: (N,) logit part of the past.
        attention: (N, H) weight of each history entry, rows sum to at most 1; None where it was not asked for.
    """

    text_logit: Tensor
    tabular_logit: Tensor
    attention: Tensor | None


class AdditiveModel(nn.Module):
    """f and g, and two calibration numbers: p = σ(slope · (f + g) + shift).

    Args:
        text_model: f.
        tabular: the networks of g.
        trees: the trees of g.
        tree_share: weight of the trees' logit in g, once they are grown; the networks have the rest.
    """

    slope: Tensor
    shift: Tensor

    def __init__(
        self, text_model: TextMatch, tabular: TabularEnsemble, trees: Trees, *, tree_share: float
    ) -> None:
        super().__init__()
        self.text_model = text_model
        self.tabular = tabular
        self.trees = trees
        self.tree_share = tree_share
        self.register_buffer("slope", torch.tensor(1.0))
        self.register_buffer("shift", torch.tensor(0.0))

    def forward(self, batch: Batch, vectors_VE: Tensor) -> tuple[Tensor, Tensor]:
        """For training: f (N,) and each member's g (N, K), not calibrated."""
        f_N, _ = self.text_model(batch, vectors_VE)
        return f_N, self.tabular(batch.numeric_features, batch.categorical_features)

    def parts(
        self,
        batch: Batch,
        vectors_VE: Tensor,
        *,
        with_attention: bool = True,
        apart_P2: Tensor | None = None,
    ) -> Parts:
        """For scoring: calibrated f and g, so that σ(f + g) is the probability.

        Args:
            batch: the rows.
            vectors_VE: vectors of the batch's texts.
            with_attention: whether to tell what was looked at.
            apart_P2: what `TextMatch.apart` says of the pairs, if it is known already.
        """
        f_N, attention_NH = self.text_model(
            batch, vectors_VE, with_attention=with_attention, apart_P2=apart_P2
        )
        g_N = self.past(batch.numeric_features, batch.categorical_features)
        return Parts(text_logit=self.slope * f_N, tabular_logit=g_N, attention=attention_NH)

    def past(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """Calibrated g alone, (N,)."""
        logit_N = self.tabular(numbers_NF, codes_NC).mean(1)
        if self.trees.grown and self.tree_share > 0:
            logit_N = torch.lerp(logit_N, self.trees(numbers_NF, codes_NC), self.tree_share)
        return self.slope * logit_N + self.shift

    def occluded(self, numbers_NF: Tensor, codes_NC: Tensor, typical_F: Tensor, usual_C: Tensor) -> Tensor:
        """What each feature adds to `past`, (N, F + C): g minus g with the feature at its typical value.

        Args:
            numbers_NF: numbers of the rows.
            codes_NC: their categories.
            typical_F: the typical numbers; NaN: unknown.
            usual_C: the usual categories.
        """
        added_ND = self.tabular.occluded(numbers_NF, codes_NC, typical_F, usual_C)
        if self.trees.grown and self.tree_share > 0:
            of_trees_ND = self.trees.occluded(numbers_NF, codes_NC, typical_F, usual_C)
            added_ND = torch.lerp(added_ND, of_trees_ND, self.tree_share)
        return self.slope * added_ND


def build_model(
    recipe: Recipe,
    transforms: Transforms,
    *,
    text_width: int,
    base_rate: float,
    num_topics: int,
    references: tuple[int, int],
) -> AdditiveModel:
    """The model that a recipe describes, with first weights drawn from torch's generator.

    Args:
        recipe: sizes.
        transforms: fitted transforms.
        text_width: width of the language model's vectors.
        base_rate: share of answered rows in the training part, between 0 and 1.
        num_topics: how many topics the words know.
        references: number of the words' reference shoppers and length of their histories.
    """
    text_model = TextMatch(
        transforms,
        text_width=text_width,
        channels=recipe.text_model.num_kernels,
        channel_width=recipe.text_model.projection_size,
        width=recipe.text_model.hidden_size,
        dropout=recipe.text_model.dropout,
        num_topics=num_topics,
        references=references,
    )
    tabular = TabularEnsemble(
        transforms,
        members=recipe.tabular_model.ensemble_size,
        width=recipe.tabular_model.hidden_size,
        dropout=recipe.tabular_model.dropout,
        base_rate=base_rate,
    )
    trees = Trees(
        recipe.tabular_model.boosting_models, recipe.tabular_model.num_trees, recipe.tabular_model.num_leaves
    )
    return AdditiveModel(text_model, tabular, trees, tree_share=recipe.tabular_model.tree_weight)
