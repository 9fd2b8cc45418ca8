"""Objectives by which a language model learns a shop's language from texts alone.

| objective | what is learned | for |
|---|---|---|
| masked | the hidden tokens of a text (Devlin et al. 2019, "BERT", section 3.1) | encoders |
| causal | each next token | decoders |
| contrastive | which of many texts is the same, read twice with dropout (Gao et al. 2021, "SimCSE") | both |

Shapes: B texts, L tokens, M tokens to guess, E width of the model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expectations.errors import SettingError
from training.language.encoder import TextEncoder

MASKED, CAUSAL, CONTRASTIVE = "masked", "causal", "contrastive"
HIDDEN = 0.15  # share of the tokens to guess; of them
AS_MASK, AS_OTHER = 0.8, 0.1  # … are shown as the mask, as any token; the rest as they are
TEMPERATURE = 0.05  # of the cosines among which the same text is found


class TokenLesson(nn.Module):
    """Guessing tokens, with a head whose last matrix is the language model's own embedding.

    Args:
        encoder: the language model.
        show: token ids (B, L), mask (B, L) and a generator -> the ids that the model is shown, and for each
            place the token to guess there, or -1.
    """

    def __init__(self, encoder: TextEncoder, show: "Show") -> None:
        super().__init__()
        rows, width = encoder.model.get_input_embeddings().weight.shape
        self.show = show
        self.dense = nn.Linear(encoder.width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(rows))

    def loss(self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy of the tokens to guess."""
        shown_BL, wanted_BL = self.show(ids_BL, mask_BL, rng)
        hidden_BLE = encoder.hidden(shown_BL, mask_BL)
        guessed_BL = wanted_BL >= 0
        words_VE = encoder.model.get_input_embeddings().weight
        looked_ME = self.norm(nn.functional.gelu(self.dense(hidden_BLE[guessed_BL])))
        return nn.functional.cross_entropy(looked_ME @ words_VE.T + self.bias, wanted_BL[guessed_BL])


class SameText(nn.Module):
    """Finding a text among others, when dropout has changed how it reads; it has no weights of its own."""

    def loss(
        self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor, _rng: np.random.Generator
    ) -> Tensor:
        """Mean cross-entropy of the same text among the batch's."""
        first_BE, second_BE = encoder(ids_BL, mask_BL), encoder(ids_BL, mask_BL)
        same = torch.arange(len(ids_BL), device=ids_BL.device)
        return nn.functional.cross_entropy(first_BE @ second_BE.T / TEMPERATURE, same)


Show = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def objective_of(objective: str, encoder: TextEncoder) -> Any:
    """The module that computes an objective's loss.

    Raises:
        SettingError: the objective does not fit the language model.
    """
    if objective == CONTRASTIVE:
        return SameText()
    decodes = _reads_forward(encoder.model)
    fitting = CAUSAL if decodes else MASKED
    if objective != fitting:
        kind = "reads forward only" if decodes else "reads in both directions"
        raise SettingError(
            f"language_objective is {objective!r}, but {type(encoder.model).__name__} {kind}; "
            f"choose {fitting!r} or {CONTRASTIVE!r}"
        )
    if objective == CAUSAL:
        return TokenLesson(encoder, _next)
    tokenizer = encoder.tokenizer
    if tokenizer.mask_token_id is None:
        raise SettingError(
            f"language_objective is {MASKED!r}, but the tokenizer of {type(encoder.model).__name__} has no mask "
            f"token; choose {CONTRASTIVE!r}"
        )
    markers = torch.tensor(sorted(tokenizer.all_special_ids))
    return TokenLesson(encoder, Hiding(markers, mask=tokenizer.mask_token_id, num_tokens=len(tokenizer)))


class Hiding:
    """Hides tokens that are no markers.

    Args:
        markers: ids of the markers.
        mask: id of the mask.
        num_tokens: of the vocabulary.
    """

    def __init__(self, markers: Tensor, *, mask: int, num_tokens: int) -> None:
        self.markers, self.mask, self.num_tokens = markers, mask, num_tokens

    def __call__(self, ids_BL: Tensor, mask_BL: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What is shown, and what is to be guessed (-1: nothing); of each text that has words, one at least."""
        may_BL = (mask_BL > 0) & ~torch.isin(ids_BL, self.markers.to(ids_BL.device))
        chance_BL = torch.from_numpy(rng.random(ids_BL.shape)).to(ids_BL.device).masked_fill(~may_BL, 2)
        least_B1 = chance_BL.amin(1, keepdim=True)
        hidden_BL = may_BL & ((chance_BL < HIDDEN) | (chance_BL == least_B1))
        kind_BL = torch.from_numpy(rng.random(ids_BL.shape)).to(ids_BL.device)
        others = torch.from_numpy(rng.integers(0, self.num_tokens, ids_BL.shape)).to(ids_BL.device)
        shown_BL = torch.where(hidden_BL & (kind_BL < AS_MASK), self.mask, ids_BL)
        as_other = hidden_BL & (kind_BL >= AS_MASK) & (kind_BL < AS_MASK + AS_OTHER)
        shown_BL = torch.where(as_other, others, shown_BL)
        return shown_BL, torch.where(hidden_BL, ids_BL, -1)


def _next(ids_BL: Tensor, mask_BL: Tensor, _rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """All is shown, and each place is to guess what follows it."""
    wanted_BL = torch.full_like(ids_BL, -1)
    wanted_BL[:, :-1] = torch.where(mask_BL[:, 1:] > 0, ids_BL[:, 1:], -1)
    return ids_BL, wanted_BL


def num_markers(encoder: TextEncoder) -> int:
    """Tokens of an empty text."""
    return int(encoder.tokenize([""]).lengths[0])


@torch.no_grad()
def _reads_forward(model: Any) -> bool:
    """Whether what a model says of a token depends on none that follows."""
    was_training = model.training
    model.eval()
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    model.train(was_training)
    return bool(torch.allclose(first[0], first[1], atol=1e-6))
