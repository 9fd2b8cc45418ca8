"""Every distinct text of the data, tokenised once, with its current vector.

Vectors are of two kinds: fresh ones, read in this very step, through which the loss reaches the language
model, and cached ones, from the last `refresh`. A step encodes its own candidates and a sample of its history
texts anew.

Shapes: T texts, V of them in a batch, L tokens, E width of the language model.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from training.language.encoder import TextEncoder
from training.runtime import distributed
from training.runtime.memory import in_microbatches

TEXTS_PER_FORWARD = 24  # texts of nearly equal length that a step reads at once
MAX_CACHE_BYTES = 2 << 30  # of the frozen layers' output that is cached


class TextEmbeddings:
    """Distinct texts and their vectors.

    Args:
        encoder: the language model.
        texts: distinct texts, by `text_id`.
        batch: texts read at once.
        device: where the model runs.
        token_dropout: fraction of a text's tokens left out where it is read to learn.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        texts: list[str],
        *,
        batch: int,
        device: str = "cpu",
        token_dropout: float = 0.0,
    ) -> None:
        self.encoder, self.token_dropout, self.batch, self.device = encoder, token_dropout, batch, device
        self.tokens = encoder.tokenize(texts)
        self.lengths = self.tokens.lengths.numpy()
        self.vectors = torch.zeros(len(texts), encoder.width, device=device)
        self._frozen_output: Tensor | None = None

    def cache_frozen_layers(self) -> None:
        """Compute the frozen layers' output of every text, once, where it is worth caching."""
        encoder = self.encoder
        in_two = encoder.num_frozen > 0 and encoder.is_trainable and not encoder.reads_whole
        fits = len(self.tokens.ids) * encoder.width * 4 <= MAX_CACHE_BYTES
        if self._frozen_output is not None or not in_two or not fits:
            return
        output = torch.zeros(len(self.tokens.ids), encoder.width)
        with torch.inference_mode():
            for text_ids in distributed.interleaved_shard(self._batches(np.arange(len(self.lengths)))):
                position_BL, mask_BL = self._token_positions(text_ids)
                hidden = encoder.forward_frozen(*self.padded(text_ids)).float().cpu()
                output[position_BL[mask_BL.bool()]] = hidden[mask_BL.bool()]
            distributed.all_reduce_rows(output, torch.arange(len(output)))
        self._frozen_output = output.clone()

    def refresh(self, text_ids: np.ndarray | None = None) -> None:
        """Read texts (all without `text_ids`) with the model as it is now and keep their vectors."""
        self.encoder.eval()
        wanted = np.arange(len(self.lengths)) if text_ids is None else text_ids
        with torch.no_grad():
            places = torch.from_numpy(wanted).to(self.device)
            self.vectors[places] = 0
            at_once: dict[str, int] = {}
            for ids in distributed.interleaved_shard(self._batches(wanted)):
                read = in_microbatches(self.encode, ids, name="texts to read", sizes=at_once)
                self.vectors[torch.from_numpy(ids).to(self.device)] = torch.cat(read)
            distributed.all_reduce_rows(self.vectors, places)

    def encode(self, text_ids: np.ndarray) -> Tensor:
        """Vectors of some texts, read now, (V, E); with gradient where the model learns."""
        position_BL, mask_BL = self._token_positions(text_ids)
        if self.encoder.training and self.token_dropout > 0:
            position_BL, mask_BL = drop_tokens(position_BL, mask_BL, self.token_dropout)
        mask = mask_BL.to(self.device)
        if self._frozen_output is None:
            return self.encoder(self.tokens.ids[position_BL].to(self.device), mask)
        return self.encoder.forward_trainable(self._frozen_output[position_BL].to(self.device), mask)

    def padded(self, text_ids: np.ndarray) -> tuple[Tensor, Tensor]:
        """Token ids of some texts and which of them are there, both (B, L)."""
        position_BL, mask_BL = self._token_positions(text_ids)
        return self.tokens.ids[position_BL].to(self.device), mask_BL.to(self.device)

    def gather(self, text_ids: np.ndarray, with_gradient: np.ndarray) -> Tensor:
        """Vectors of `text_ids`, (V, E): those also in `with_gradient` encoded now with gradient, the rest cached.

        Args:
            text_ids: (V,) distinct, ascending.
            with_gradient: distinct text ids, all among `text_ids`.
        """
        cached = self.vectors[torch.from_numpy(text_ids).to(self.device)]
        if not len(with_gradient) or not self.encoder.is_trainable:
            return cached
        order = with_gradient[np.argsort(self.lengths[with_gradient], kind="stable")]
        # Parts by length: short history texts do not pay for the candidates' padding.
        parts = np.array_split(order, max(2, len(order) // TEXTS_PER_FORWARD))
        read = torch.cat([self.encode(part) for part in parts if len(part)])
        places = torch.from_numpy(np.searchsorted(text_ids, order)).to(self.device)
        return cached.index_copy(0, places, read)

    def _batches(self, text_ids: np.ndarray) -> Iterator[np.ndarray]:
        order = text_ids[np.argsort(self.lengths[text_ids], kind="stable")]
        for start in range(0, len(order), self.batch):
            yield order[start : start + self.batch]

    def _token_positions(self, text_ids: np.ndarray) -> tuple[Tensor, Tensor]:
        """Where each text's tokens are and which are there, both (B, L); absent ones point at the first."""
        chosen = torch.from_numpy(text_ids)
        offsets, lengths = self.tokens.offsets[chosen], self.tokens.lengths[chosen]
        steps = torch.arange(int(lengths.max()))
        mask = steps[None, :] < lengths[:, None]
        places = torch.where(mask, offsets[:, None] + steps, offsets[:, None])
        return places, mask.long()


def drop_tokens(position_BL: Tensor, mask_BL: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Texts without some of their tokens: what is left moves together, so a step pays for that alone.

    Args:
        position_BL: places of tokens, those of each text first.
        mask_BL: 1 where there is one.
        rate: chance of a token to go; a text's first and last stay, which mark its ends in most models.

    Returns:
        Places and mask, both (B, the longest that is left).
    """
    inner_BL = torch.zeros_like(mask_BL)
    inner_BL[:, 1:-1] = mask_BL[:, 2:]
    gone_BL = (torch.rand(mask_BL.shape) < rate) & (inner_BL > 0)
    left_BL = mask_BL * ~gone_BL
    order_BL = torch.argsort(left_BL, dim=1, descending=True, stable=True)[:, : int(left_BL.sum(1).max())]
    left_BL = left_BL.gather(1, order_BL)
    return torch.where(left_BL > 0, position_BL.gather(1, order_BL), position_BL[:, :1]), left_BL
