"""g(b, c): the tabular model's networks, a logit from numeric and categorical features.

Shapes: N rows, F numeric features, C categorical features, B quantile bins, K members, D encoded width, H
hidden units of all members.

Some hundreds of positives are few to learn from: the variance of one network is worth more than its bias. So g
is the mean of K small networks trained side by side (the packed ensemble of Gorishniy et al. 2025, "TabM",
section 3), which costs one matrix product more than one network.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.transforms import Transforms


class NumericEncoding(nn.Module):
    """Piecewise-linear quantile bins (Gorishniy et al. 2022), a standardised logarithm and an "unknown" flag."""

    edges: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        self.register_buffer("edges", torch.from_numpy(transforms.bin_edges.copy()))
        self.register_buffer("centre", torch.from_numpy(transforms.centre.copy()))
        self.register_buffer("scale", torch.from_numpy(transforms.scale.copy()))
        num_features, num_edges = transforms.bin_edges.shape
        self.width = num_features * (num_edges + 1)

    def forward(self, numbers_NF: Tensor) -> Tensor:
        """(N, F) with NaN -> (N, F * (B + 2)) without."""
        num_rows, num_bins = len(numbers_NF), self.edges.shape[1] - 1
        unknown_NF = torch.isnan(numbers_NF)
        values_NF = torch.where(unknown_NF, self.edges[:, 0], numbers_NF)  # there every bin is 0
        encoded_ND = numbers_NF.new_empty(num_rows, self.width)
        # Column by column in place: these are the widest values of the model, and each copy costs a pass over memory.
        sizes = [self.edges.shape[0] * num_bins, *2 * [self.edges.shape[0]]]
        bins_ND, logs_NF, flags_NF = encoded_ND.split(sizes, dim=1)
        width_FB = self.edges[:, 1:] - self.edges[:, :-1]
        inverse_width_FB = (width_FB > 0) / width_FB.clamp_min(1e-9)
        bins_NFB = bins_ND.unflatten(1, (-1, num_bins))
        torch.sub(values_NF[:, :, None], self.edges[:, :-1], out=bins_NFB).mul_(inverse_width_FB).clamp_(0, 1)
        logs_NF.copy_(self.standardised(values_NF)).masked_fill_(unknown_NF, 0)
        flags_NF.copy_(unknown_NF)
        return encoded_ND

    def by_feature(self, columns_XD: Tensor) -> Tensor:
        """Encoded columns, or their weights, (X, F * (B + 2)) -> (X, F, B + 2): those of a feature together."""
        num_features, num_edges = self.edges.shape
        sizes = [num_features * (num_edges - 1), num_features, num_features]
        bins_XD, logs_XF, flags_XF = columns_XD.split(sizes, dim=1)
        bins_XFB = bins_XD.unflatten(1, (num_features, -1))
        return torch.cat([bins_XFB, logs_XF[:, :, None], flags_XF[:, :, None]], dim=2)

    def standardised(self, values_NF: Tensor) -> Tensor:
        """Signed logarithm with mean 0 and deviation 1 in the training part, cut at 4 deviations."""
        logs = torch.sign(values_NF) * torch.log1p(values_NF.abs())
        return ((logs - self.centre) / self.scale).clamp(-4, 4)


class CategoryEncoding(nn.Module):
    """Categories as one-hot columns, one for "unknown"."""

    starts: Tensor

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        sizes = [len(transforms.category_vocabularies[name]) + 1 for name in transforms.categorical]
        self.width = sum(sizes)
        self.register_buffer("starts", torch.tensor([sum(sizes[:i]) for i in range(len(sizes))]).long())

    def forward(self, codes_NC: Tensor) -> Tensor:
        """(N, C) codes -> (N, width) of 0 and 1."""
        one_hot_NX = torch.zeros(len(codes_NC), self.width, device=codes_NC.device)
        return one_hot_NX.scatter_(1, codes_NC + self.starts, 1.0)


class TabularEnsemble(nn.Module):
    """K two-layer networks over the same encoded features, side by side.

    Args:
        transforms: fitted on the training part.
        ensemble_size: K.
        hidden_size: hidden units of each member.
        dropout: fraction of hidden units left out in training.
        base_rate: fraction of positives; the first output of every member.
    """

    def __init__(
        self,
        transforms: Transforms,
        *,
        ensemble_size: int,
        hidden_size: int,
        dropout: float,
        base_rate: float,
    ) -> None:
        super().__init__()
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
        self.dropout = nn.Dropout(dropout)

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
        codes_CN, most_frequent_C1 = (
            (codes_NC + self.categories.starts).T,
            (most_frequent_C + self.categories.starts)[:, None],
        )
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
