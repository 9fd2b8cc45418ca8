"""From the vectors of a text's tokens to one vector of the text.

It is made of the last layer's token vectors: their mean (Reimers & Gurevych 2019, "Sentence-BERT", section 3),
the first one (BERT's [CLS]) or the last one (all that a decoder has read).

Shapes: B texts, L tokens, E width of the model.
"""

import torch
from torch import Tensor, nn

MEAN, FIRST, LAST = "mean", "first", "last"


def pool(hidden_BLE: Tensor, mask_BL: Tensor, pooling: str = MEAN) -> Tensor:
    """One vector of each text's tokens, brought to length 1; in float32."""
    hidden_BLE = hidden_BLE.float()
    if pooling == MEAN:
        mask = mask_BL[:, :, None].float()
        vector = (hidden_BLE * mask).sum(1) / mask.sum(1).clamp_min(1)
    elif pooling == FIRST:
        vector = hidden_BLE[:, 0]
    else:
        last = (mask_BL.sum(1) - 1).clamp_min(0)
        vector = hidden_BLE[torch.arange(len(last), device=last.device), last]
    return nn.functional.normalize(vector, dim=1)
