"""Objectives by which a language model learns a shop's language from texts alone.

| objective | what is learned | for |
|---|---|---|
| masked | the hidden tokens of a text (Devlin et al. 2019, "BERT", section 3.1) | encoders |
| causal | each next token | decoders |
| contrastive | which of many texts is the same, read twice with dropout (Gao et al. 2021, "SimCSE") | both |

What is masked is chosen by `transformers`' own collator.

Shapes: B texts, L tokens, M tokens to guess, E width of the model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from expectations.errors import SettingError
from training.language.encoder import TextEncoder

MASKED, CAUSAL, CONTRASTIVE = "masked", "causal", "contrastive"
IGNORED = -100  # label of a token that is not to be guessed
TEMPERATURE = 0.05  # of the cosines among which the same text is found


class LanguageModelingObjective(nn.Module):
    """Masked or causal language modelling, with a head whose last matrix is the language model's own embedding.

    Args:
        encoder: the language model.
        corrupt: token ids (B, L) and mask (B, L) -> the ids that the model is shown, and for each place the token
            to guess there, or IGNORED.
    """

    def __init__(self, encoder: TextEncoder, corrupt: "Corruption") -> None:
        super().__init__()
        rows, width = encoder.model.get_input_embeddings().weight.shape
        self.corrupt = corrupt
        self.dense = nn.Linear(encoder.width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(rows))

    def loss(self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Mean cross-entropy of the tokens to guess, 0 without any."""
        input_BL, label_BL = self.corrupt(ids_BL, mask_BL)
        hidden_BLE = encoder.hidden(input_BL, mask_BL)
        is_target_BL = label_BL != IGNORED
        embedding_VE = encoder.model.get_input_embeddings().weight
        transformed_ME = self.norm(nn.functional.gelu(self.dense(hidden_BLE[is_target_BL])))
        logits_MV = transformed_ME @ embedding_VE.T + self.bias
        total = nn.functional.cross_entropy(logits_MV, label_BL[is_target_BL], reduction="sum")
        return total / max(len(logits_MV), 1)


class ContrastiveObjective(nn.Module):
    """Unsupervised SimCSE: finding a text among others, read twice with dropout; without weights of its own."""

    def loss(self, encoder: TextEncoder, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Mean cross-entropy of the same text among the batch's."""
        first_BE, second_BE = encoder(ids_BL, mask_BL), encoder(ids_BL, mask_BL)
        target_B = torch.arange(len(ids_BL), device=ids_BL.device)
        return nn.functional.cross_entropy(first_BE @ second_BE.T / TEMPERATURE, target_B)


Corruption = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
    return LanguageModelingObjective(encoder, token_masking(tokenizer))


def token_masking(tokenizer: Any) -> Corruption:
    """15 % of the tokens that are not special: 80 % of them as the mask, 10 % as any token, the rest as they are."""
    from transformers import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(tokenizer)
    special_ids = torch.tensor(tokenizer.all_special_ids)

    def corrupt(ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        ids_BL, device = ids_BL.cpu(), ids_BL.device
        fixed_BL = (mask_BL.cpu() == 0) | torch.isin(ids_BL, special_ids)
        input_BL, label_BL = collator.torch_mask_tokens(ids_BL.clone(), special_tokens_mask=fixed_BL)
        return input_BL.to(device), label_BL.to(device)

    return corrupt


def _next_token_labels(ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """All is shown, and each place is to guess what follows it."""
    label_BL = torch.full_like(ids_BL, IGNORED)
    label_BL[:, :-1] = torch.where(mask_BL[:, 1:] > 0, ids_BL[:, 1:], IGNORED)
    return ids_BL, label_BL


@torch.no_grad()
def _is_causal(model: Any) -> bool:
    """Whether what a model says of a token depends on none that follows."""
    was_training = model.training
    model.eval()
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    model.train(was_training)
    return bool(torch.allclose(first[0], first[1], atol=1e-6))
