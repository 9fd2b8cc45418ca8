"""The context in which a candidate is shown, as numbers for the text model.

Shapes: N rows, F numeric features, C categorical features.
"""

import torch
from torch import Tensor, nn

from training.data.transforms import Transforms
from training.models.tabular import CategoryEncoding, NumericEncoding

CONTEXT = "context_"


class ContextEncoding(nn.Module):
    """The features named context_*: standardised logarithms, "unknown" flags and one-hot categories."""

    numeric: Tensor
    categorical: Tensor

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        part, numeric, categorical = transforms.with_prefix(CONTEXT)
        self.numbers = NumericEncoding(part)
        self.categories = CategoryEncoding(part)
        self.register_buffer("numeric", torch.tensor(numeric, dtype=torch.long))
        self.register_buffer("categorical", torch.tensor(categorical, dtype=torch.long))
        self.width = 2 * len(numeric) + self.categories.width

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """(N, width) without NaN."""
        numbers = numbers_NF[:, self.numeric]
        unknown = torch.isnan(numbers)
        logs = self.numbers.standardised(numbers.nan_to_num()).masked_fill(unknown, 0)
        categories = self.categories(codes_NC[:, self.categorical])
        return torch.cat([logs, unknown.float(), categories], dim=1)
