"""Features as numbers that a network can read: of g all of them, of f those of the request's context.

By hand, as no kept library encodes piecewise-linearly (scikit-learn's bins are one-hot) and in place.

Shapes: N rows, F numeric features, C categorical features, B quantile bins, D encoded width.
"""

import torch
from torch import Tensor, nn

from training.data.transforms import Transforms

CONTEXT = "context_"


class NumericEncoding(nn.Module):
    """Piecewise-linear quantile bins (Gorishniy et al. 2022), a standardised logarithm and an "unknown" flag.

    A flag that was the same in all of the training part taught nothing but a constant, and is 0 later, too (a young
    shop's first outcomes become known after it); what was never unknown there counts as its median where it is.
    """

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        self.edges = nn.Buffer(torch.from_numpy(transforms.bin_edges.copy()))
        self.centre = nn.Buffer(torch.from_numpy(transforms.centre.copy()))
        self.scale = nn.Buffer(torch.from_numpy(transforms.scale.copy()))
        fraction = torch.from_numpy(transforms.unknown_fraction.copy())
        self.default = nn.Buffer(
            torch.where(fraction > 0, self.edges[:, 0], torch.from_numpy(transforms.typical))
        )
        self.flag_weight = nn.Buffer(((fraction > 0) & (fraction < 1)).float())
        num_features, num_edges = transforms.bin_edges.shape
        self.width = num_features * (num_edges + 1)

    def forward(self, numbers_NF: Tensor) -> Tensor:
        """(N, F) with NaN -> (N, F * (B + 2)) without."""
        num_rows, num_bins = len(numbers_NF), self.edges.shape[1] - 1
        unknown_NF = torch.isnan(numbers_NF)
        values_NF = torch.where(unknown_NF, self.default, numbers_NF)
        encoded_ND = numbers_NF.new_empty(num_rows, self.width)
        # Column by column in place: these are the widest values of the model, and each copy costs a pass over memory.
        sizes = [self.edges.shape[0] * num_bins, *2 * [self.edges.shape[0]]]
        bins_ND, logs_NF, flags_NF = encoded_ND.split(sizes, dim=1)
        width_FB = self.edges[:, 1:] - self.edges[:, :-1]
        inverse_width_FB = (width_FB > 0) / width_FB.clamp_min(1e-9)
        bins_NFB = bins_ND.unflatten(1, (-1, num_bins))
        torch.sub(values_NF[:, :, None], self.edges[:, :-1], out=bins_NFB).mul_(inverse_width_FB).clamp_(0, 1)
        logs_NF.copy_(self.standardised(values_NF)).masked_fill_(unknown_NF, 0)
        torch.mul(unknown_NF, self.flag_weight, out=flags_NF)
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

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        sizes = [len(transforms.category_vocabularies[name]) + 1 for name in transforms.categorical]
        self.width = sum(sizes)
        self.starts = nn.Buffer(torch.tensor([sum(sizes[:i]) for i in range(len(sizes))]).long())

    def forward(self, codes_NC: Tensor) -> Tensor:
        """(N, C) codes -> (N, width) of 0 and 1."""
        one_hot_NX = torch.zeros(len(codes_NC), self.width, device=codes_NC.device)
        return one_hot_NX.scatter_(1, codes_NC + self.starts, 1.0)


class ContextEncoding(nn.Module):
    """The features named context_*: standardised logarithms, "unknown" flags and one-hot categories."""

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        part, numeric, categorical = transforms.with_prefix(CONTEXT)
        self.numbers = NumericEncoding(part)
        self.categories = CategoryEncoding(part)
        self.numeric = nn.Buffer(torch.tensor(numeric, dtype=torch.long))
        self.categorical = nn.Buffer(torch.tensor(categorical, dtype=torch.long))
        self.width = 2 * len(numeric) + self.categories.width

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """(N, width) without NaN."""
        numbers = numbers_NF[:, self.numeric]
        unknown = torch.isnan(numbers)
        logs = self.numbers.standardised(numbers.nan_to_num()).masked_fill(unknown, 0)
        categories = self.categories(codes_NC[:, self.categorical])
        return torch.cat([logs, unknown * self.numbers.flag_weight, categories], dim=1)
