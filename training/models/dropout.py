"""Dropout that costs little on a CPU.

By hand: torch draws a number for each unit there, one after the other in a single thread (11 ns each, more than a
quarter of a step of g's networks); here four units share the 64 bits of one draw.
"""

import torch
from torch import Tensor, nn

BITS = 16  # of a unit: its probability is that near, 1 / 65,536


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with other draws on a CPU: of any shape, its units' fraction `p` 0, the others 1 / (1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        """The input with some of its units 0 while training; as it is otherwise."""
        if not self.training or self.p in (0.0, 1.0) or input.device.type != "cpu":
            return super().forward(input)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: input.numel()].view(input.shape)
        mask = bits >= round((self.p - 0.5) * 2**BITS)
        return input * (mask / (1 - self.p))
