"""The additive model: p = σ(f(a, c) + g(b, c)), its two parts separate to the end."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.collate import Batch
from training.data.transforms import Transforms
from training.models.boosted_trees import BoostedTrees
from training.models.tabular import TabularEnsemble
from training.models.text_match import TEXT_PARTS, TextMatch

TABULAR_PARTS = ("networks", "trees")
PARTS = TEXT_PARTS + TABULAR_PARTS


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

    Attributes:
        tabular_scales: (2,) how much each of TABULAR_PARTS counts in g.
    """

    def __init__(self, text_model: TextMatch, tabular: TabularEnsemble, trees: BoostedTrees) -> None:
        super().__init__()
        self.text_model = text_model
        self.tabular = tabular
        self.trees = trees
        self.tabular_scales = nn.Buffer(torch.tensor([1.0, 0.0]))
        self.slope = nn.Buffer(torch.tensor(1.0))
        self.intercept = nn.Buffer(torch.tensor(0.0))

    @torch.no_grad()
    def set_scales(self, scales: Sequence[float], intercept: float) -> None:
        """Say how much each of PARTS counts, and what is added to all."""
        text, tabular = torch.tensor(scales).split([len(TEXT_PARTS), len(TABULAR_PARTS)])
        self.text_model.scales.copy_(text)
        self.tabular_scales.copy_(tabular)
        self.intercept.fill_(intercept)

    def calibrate(self, slope: float, shift: float) -> None:
        """Take Platt scaling's two numbers of the logit as it is."""
        self.intercept.copy_(slope * self.intercept + shift)
        self.slope.mul_(slope)

    def forward(self, batch: Batch, text_vectors_VE: Tensor) -> Tensor:
        """For training: the logit of f and each member of g, (N, K), not calibrated.

        The networks stand for all of g: the trees know the training part by heart, and would leave nothing to learn.
        """
        parts_N4, _ = self.text_model(batch, text_vectors_VE)
        g_NK = self.tabular(batch.numeric_features, batch.categorical_features)
        return (
            (parts_N4 @ self.text_model.scales)[:, None] + self.tabular_scales.sum() * g_NK + self.intercept
        )

    def calibrated_logits(
        self,
        batch: Batch,
        text_vectors_VE: Tensor,
        *,
        with_attention: bool = True,
        user_independent_P4: Tensor | None = None,
        trees_N: Tensor | None = None,
    ) -> CalibratedLogits:
        """For scoring: calibrated f and g, so that σ(f + g) is the probability.

        Args:
            batch: the rows.
            text_vectors_VE: vectors of the batch's texts.
            with_attention: whether to give the attention.
            user_independent_P4: what `TextMatch.user_independent` gives for the pairs, where it is known already.
            trees_N: the trees' logits of the rows, where they are known already.
        """
        parts_N4, attention_NH = self.text_model(
            batch, text_vectors_VE, with_attention=with_attention, user_independent_P4=user_independent_P4
        )
        f_N = self.slope * (parts_N4 @ self.text_model.scales)
        g_N = self.tabular_logit(batch.numeric_features, batch.categorical_features, trees_N)
        return CalibratedLogits(text_logit=f_N, tabular_logit=g_N, attention=attention_NH)

    def parts(self, batch: Batch, text_vectors_VE: Tensor) -> Tensor:
        """PARTS of the logit, neither scaled nor calibrated, (N, 6)."""
        parts_N4, _ = self.text_model(batch, text_vectors_VE)
        features = batch.numeric_features, batch.categorical_features
        networks_N = self.tabular(*features).mean(1)
        trees_N = self.trees(*features) if self.trees.fitted else torch.zeros_like(networks_N)
        return torch.cat([parts_N4, networks_N[:, None], trees_N[:, None]], dim=1)

    def tabular_logit(self, numbers_NF: Tensor, codes_NC: Tensor, trees_N: Tensor | None = None) -> Tensor:
        """Calibrated g alone, (N,); `trees_N`: the trees' logits, where they are known already."""
        logit_N = numbers_NF.new_zeros(len(numbers_NF))
        of_networks, of_trees = self.tabular_scales
        if of_networks:
            logit_N = logit_N + of_networks * self.tabular(numbers_NF, codes_NC).mean(1)
        if of_trees:
            logit_N = logit_N + of_trees * (self.trees(numbers_NF, codes_NC) if trees_N is None else trees_N)
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
        of_networks, of_trees = self.tabular_scales
        contributions_ND = of_networks * self.tabular.ablation(
            numbers_NF, codes_NC, typical_F, most_frequent_C
        )
        if of_trees:
            contributions_ND = contributions_ND + of_trees * self.trees.contributions(numbers_NF, codes_NC)
        return self.slope * contributions_ND


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
    return AdditiveModel(f, networks, trees)
