"""g(b, c): the tabular model's networks, a logit from numeric and categorical features.

Shapes: N rows, F numeric features, C categorical features, B quantile bins, K members, D encoded width, H
hidden units of all members.

Some hundreds of positives are few to learn from: the variance of one network is worth more than its bias. So g
is the mean of K small networks trained side by side (the packed ensemble of Gorishniy et al. 2025, "TabM",
section 3), which costs one matrix product more than one network.

The ablation of features is by hand: the first layer is a sum over features, so that it is one batched product for all
of them, where a library of explanations would run the network once a feature.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config.recipe import TabularModelSettings
from training.data.transforms import Transforms
from training.models.dropout import Dropout
from training.models.encodings import CategoryEncoding, NumericEncoding


class TabularEnsemble(nn.Module):
    """K two-layer networks over the same encoded features, side by side.

    Args:
        transforms: fitted on the training part.
        settings: K, hidden units of each member, and the fraction of them left out in training.
        base_rate: fraction of positives; the first output of every member.
    """

    def __init__(self, transforms: Transforms, settings: TabularModelSettings, *, base_rate: float) -> None:
        super().__init__()
        ensemble_size, hidden_size = settings.ensemble_size, settings.hidden_size
        self.numbers = NumericEncoding(transforms)
        self.categories = CategoryEncoding(transforms)
        encoded = self.numbers.width + self.categories.width
        self.ensemble_size = ensemble_size
        self.first = nn.Linear(encoded, ensemble_size * hidden_size)
        self.second_weight = nn.Parameter(
            torch.randn(ensemble_size, hidden_size, hidden_size) * math.sqrt(2 / hidden_size)
        )
        self.second_bias = nn.Parameter(torch.zeros(ensemble_size, 1, hidden_size))
        self.out_weight = nn.Parameter(torch.randn(ensemble_size, hidden_size, 1) * 0.01)
        self.out_bias = nn.Parameter(torch.full((ensemble_size, 1), math.log(base_rate / (1 - base_rate))))
        self.dropout = Dropout(settings.dropout)

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """The members' logits, (N, K)."""
        return self._logits(self._first(numbers_NF, codes_NC))

    def ablation(
        self, numbers_NF: Tensor, codes_NC: Tensor, typical_F: Tensor, most_frequent_C: Tensor
    ) -> Tensor:
        """Ablation of each feature, (N, F + C): the mean logit minus that with the feature at its typical value.

        The first layer is a sum over the features: what a feature's typical value changes there is its own term.
        """
        of_numbers, of_categories = self._first_weights()
        own_NFE, typical_1FE = (
            self.numbers.by_feature(self.numbers(numbers)) for numbers in (numbers_NF, typical_F[None])
        )
        weights_FEH = self.numbers.by_feature(of_numbers).permute(1, 2, 0)
        codes_CN = (codes_NC + self.categories.starts).T
        most_frequent_C1 = (most_frequent_C + self.categories.starts)[:, None]
        changes = [
            (typical_1FE - own_NFE).transpose(0, 1) @ weights_FEH,
            of_categories.T[most_frequent_C1] - of_categories.T[codes_CN],
        ]
        hidden_NH = self._first(numbers_NF, codes_NC)
        hidden_XNH = torch.cat([torch.zeros_like(hidden_NH)[None], *changes]) + hidden_NH
        logit_XN = self._logits(hidden_XNH.flatten(0, 1)).mean(1).unflatten(0, hidden_XNH.shape[:2])
        return (logit_XN[0] - logit_XN[1:]).T

    def _first_weights(self) -> tuple[Tensor, ...]:
        return self.first.weight.split([self.numbers.width, self.categories.width], dim=1)

    def _first(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        # Not joined into one matrix: that would copy the widest values of the model.
        of_numbers, of_categories = self._first_weights()
        hidden = functional.linear(self.numbers(numbers_NF), of_numbers, self.first.bias)
        return hidden + functional.linear(self.categories(codes_NC), of_categories)

    def _logits(self, hidden_NH: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(hidden_NH))
        hidden_KNW = hidden.unflatten(1, (self.ensemble_size, -1)).transpose(0, 1)
        hidden_KNW = torch.relu(torch.baddbmm(self.second_bias, hidden_KNW, self.second_weight))
        logits_KN = (self.dropout(hidden_KNW) @ self.out_weight).squeeze(2) + self.out_bias
        return logits_KN.T
