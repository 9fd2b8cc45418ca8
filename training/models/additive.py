"""The additive model: p = σ(f(a, c) + g(b, c)), its two parts separate to the end."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.collate import Batch
from training.data.transforms import Transforms
from training.models.boosted_trees import BoostedTrees
from training.models.tabular import TabularEnsemble
from training.models.text_match import TextMatch


@dataclass(frozen=True, kw_only=True)
class CalibratedLogits:
    """Calibrated logit parts of N rows; the attention, rows sum to at most 1, is None where it was not asked for."""

    text_logit: Tensor  # (N,) f, of texts and context
    tabular_logit: Tensor  # (N,) g, of past outcomes
    attention: Tensor | None  # (N, H) weight of each history entry


class AdditiveModel(nn.Module):
    """f and g, and their calibration: p = σ(slope · (f + g) + intercept).

    Args:
        text_model: f.
        tabular: the networks of g.
        trees: the trees of g.
        tree_weight: weight of the trees' logit in g, once they are fitted; the networks have the rest.
    """

    def __init__(
        self, text_model: TextMatch, tabular: TabularEnsemble, trees: BoostedTrees, *, tree_weight: float
    ) -> None:
        super().__init__()
        self.text_model = text_model
        self.tabular = tabular
        self.trees = trees
        self.tree_weight = tree_weight
        self.slope = nn.Buffer(torch.tensor(1.0))
        self.intercept = nn.Buffer(torch.tensor(0.0))

    def forward(self, batch: Batch, text_vectors_VE: Tensor) -> tuple[Tensor, Tensor]:
        """For training: f (N,) and each member's g (N, K), not calibrated."""
        f_N, _ = self.text_model(batch, text_vectors_VE)
        return f_N, self.tabular(batch.numeric_features, batch.categorical_features)

    def calibrated_logits(
        self,
        batch: Batch,
        text_vectors_VE: Tensor,
        *,
        with_attention: bool = True,
        user_independent_P2: Tensor | None = None,
    ) -> CalibratedLogits:
        """For scoring: calibrated f and g, so that σ(f + g) is the probability.

        Args:
            batch: the rows.
            text_vectors_VE: vectors of the batch's texts.
            with_attention: whether to give the attention.
            user_independent_P2: what `TextMatch.user_independent` gives for the pairs, where it is known already.
        """
        f_N, attention_NH = self.text_model(
            batch, text_vectors_VE, with_attention=with_attention, user_independent_P2=user_independent_P2
        )
        g_N = self.tabular_logit(batch.numeric_features, batch.categorical_features)
        return CalibratedLogits(text_logit=self.slope * f_N, tabular_logit=g_N, attention=attention_NH)

    def tabular_logit(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """Calibrated g alone, (N,)."""
        logit_N = self.tabular(numbers_NF, codes_NC).mean(1)
        if self._with_trees:
            logit_N = torch.lerp(logit_N, self.trees(numbers_NF, codes_NC), self.tree_weight)
        return self.slope * logit_N + self.intercept

    def tabular_contributions(
        self, numbers_NF: Tensor, codes_NC: Tensor, typical_F: Tensor, most_frequent_C: Tensor
    ) -> Tensor:
        """Contribution of each feature to g in logits, (N, F + C): the networks' ablation, the trees' SHAP values.

        Args:
            numbers_NF: numbers of the rows.
            codes_NC: their categories.
            typical_F: the typical numbers; NaN: unknown.
            most_frequent_C: the most frequent categories.
        """
        contributions_ND = self.tabular.ablation(numbers_NF, codes_NC, typical_F, most_frequent_C)
        if self._with_trees:
            of_trees_ND = self.trees.contributions(numbers_NF, codes_NC)
            contributions_ND = torch.lerp(contributions_ND, of_trees_ND, self.tree_weight)
        return self.slope * contributions_ND

    @property
    def _with_trees(self) -> bool:
        return self.trees.fitted and self.tree_weight > 0


def build_model(
    recipe: Recipe,
    transforms: Transforms,
    *,
    base_rate: float,
    text_width: int,
    num_topics: int,
    reference_shape: tuple[int, int],
) -> AdditiveModel:
    """The model that a recipe describes, with first weights drawn from torch's generator.

    Args:
        recipe: sizes.
        transforms: fitted transforms.
        base_rate: fraction of positives in the training part, between 0 and 1.
        text_width: width of the language model's vectors.
        num_topics: how many topics the text model knows.
        reference_shape: number of its reference users and length of their histories.
    """
    f = TextMatch(
        transforms,
        recipe.text_model,
        text_width=text_width,
        num_topics=num_topics,
        reference_shape=reference_shape,
    )
    networks = TabularEnsemble(transforms, recipe.tabular_model, base_rate=base_rate)
    trees = BoostedTrees(recipe.tabular_model)
    return AdditiveModel(f, networks, trees, tree_weight=recipe.tabular_model.tree_weight)
