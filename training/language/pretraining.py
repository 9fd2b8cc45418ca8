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
MASKING_RATE = 0.15  # fraction of the tokens to guess; of them
MASK_TOKEN_RATE, RANDOM_TOKEN_RATE = 0.8, 0.1  # … are shown as the mask, as any token; the rest as they are
TEMPERATURE = 0.05  # of the cosines among which the same text is found


class LanguageModelingObjective(nn.Module):
    """Masked or causal language modelling, with a head whose last matrix is the language model's own embedding.

    Args:
        encoder: the language model.
        corrupt: token ids (B, L), mask (B, L) and a generator -> the ids that the model is shown, and for each
            place the token to guess there, or -1.
    """

    def __init__(self, encoder: TextEncoder, corrupt: "Corruption") -> None:
        super().__init__()
        rows, width = encoder.model.get_input_embeddings().weight.shape
        self.corrupt = corrupt
        self.dense = nn.Linear(encoder.width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(rows))

    def loss(self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor, rng: np.random.Generator) -> Tensor:
        """Mean cross-entropy of the tokens to guess."""
        input_BL, label_BL = self.corrupt(ids_BL, mask_BL, rng)
        hidden_BLE = encoder.hidden(input_BL, mask_BL)
        is_target_BL = label_BL >= 0
        embedding_VE = encoder.model.get_input_embeddings().weight
        transformed_ME = self.norm(nn.functional.gelu(self.dense(hidden_BLE[is_target_BL])))
        return nn.functional.cross_entropy(
            transformed_ME @ embedding_VE.T + self.bias, label_BL[is_target_BL]
        )


class ContrastiveObjective(nn.Module):
    """Unsupervised SimCSE: finding a text among others, read twice with dropout; without weights of its own."""

    def loss(
        self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor, _rng: np.random.Generator
    ) -> Tensor:
        """Mean cross-entropy of the same text among the batch's."""
        first_BE, second_BE = encoder(ids_BL, mask_BL), encoder(ids_BL, mask_BL)
        target_B = torch.arange(len(ids_BL), device=ids_BL.device)
        return nn.functional.cross_entropy(first_BE @ second_BE.T / TEMPERATURE, target_B)


Corruption = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def pretraining_objective(objective: str, encoder: TextEncoder) -> Any:
    """The module that computes an objective's loss.

    Raises:
        SettingError: the objective does not fit the language model.
    """
    if objective == CONTRASTIVE:
        return ContrastiveObjective()
    causal = _is_causal(encoder.model)
    fitting = CAUSAL if causal else MASKED
    if objective != fitting:
        kind = "reads forward only" if causal else "reads in both directions"
        raise SettingError(
            f"language_objective is {objective!r}, but {type(encoder.model).__name__} {kind}; "
            f"choose {fitting!r} or {CONTRASTIVE!r}"
        )
    if objective == CAUSAL:
        return LanguageModelingObjective(encoder, _next_token_labels)
    tokenizer = encoder.tokenizer
    if tokenizer.mask_token_id is None:
        raise SettingError(
            f"language_objective is {MASKED!r}, but the tokenizer of {type(encoder.model).__name__} has no mask "
            f"token; choose {CONTRASTIVE!r}"
        )
    special_token_ids = torch.tensor(sorted(tokenizer.all_special_ids))
    return LanguageModelingObjective(
        encoder, TokenMasking(special_token_ids, mask=tokenizer.mask_token_id, num_tokens=len(tokenizer))
    )


class TokenMasking:
    """Masks tokens that are not special (Devlin et al. 2019, section 3.1).

    Args:
        special_token_ids: tokens that are never masked.
        mask: id of the mask.
        num_tokens: of the vocabulary.
    """

    def __init__(self, special_token_ids: Tensor, *, mask: int, num_tokens: int) -> None:
        self.special_token_ids, self.mask, self.num_tokens = special_token_ids, mask, num_tokens

    def __call__(self, ids_BL: Tensor, mask_BL: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What is shown, and what is to be guessed (-1: nothing); of each text that has words, one at least."""
        maskable_BL = (mask_BL > 0) & ~torch.isin(ids_BL, self.special_token_ids.to(ids_BL.device))
        uniform_BL = torch.from_numpy(rng.random(ids_BL.shape)).to(ids_BL.device).masked_fill(~maskable_BL, 2)
        lowest_B1 = uniform_BL.amin(1, keepdim=True)
        masked_BL = maskable_BL & ((uniform_BL < MASKING_RATE) | (uniform_BL == lowest_B1))
        replacement_BL = torch.from_numpy(rng.random(ids_BL.shape)).to(ids_BL.device)
        random_ids_BL = torch.from_numpy(rng.integers(0, self.num_tokens, ids_BL.shape)).to(ids_BL.device)
        input_BL = torch.where(masked_BL & (replacement_BL < MASK_TOKEN_RATE), self.mask, ids_BL)
        randomised_BL = (
            masked_BL
            & (replacement_BL >= MASK_TOKEN_RATE)
            & (replacement_BL < MASK_TOKEN_RATE + RANDOM_TOKEN_RATE)
        )
        input_BL = torch.where(randomised_BL, random_ids_BL, input_BL)
        return input_BL, torch.where(masked_BL, ids_BL, -1)


def _next_token_labels(ids_BL: Tensor, mask_BL: Tensor, _rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """All is shown, and each place is to guess what follows it."""
    label_BL = torch.full_like(ids_BL, -1)
    label_BL[:, :-1] = torch.where(mask_BL[:, 1:] > 0, ids_BL[:, 1:], -1)
    return ids_BL, label_BL


def num_special_tokens(encoder: TextEncoder) -> int:
    """Tokens of an empty text."""
    return int(encoder.tokenize([""]).lengths[0])


@torch.no_grad()
def _is_causal(model: Any) -> bool:
    """Whether what a model says of a token depends on none that follows."""
    was_training = model.training
    model.eval()
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    model.train(was_training)
    return bool(torch.allclose(first[0], first[1], atol=1e-6))
