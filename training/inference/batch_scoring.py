"""Scores of many rows at once; what the model, the bundle and the evaluation share."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.data.collate import Collator
from training.data.sampling import tabular_batches
from training.models.additive import AdditiveModel
from training.runtime import distributed
from training.runtime.memory import in_microbatches

PAST_CHUNK = 1024  # rows whose encoded features stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the model says of k rows.

    Attributes:
        text_logit: (k,) logit part of words and context.
        tabular_logit: (k,) logit part of the past.
        probability: (k,) σ(f + g).
        attention: (k, H) weight of each history entry, newest first; (k, 0) where it was not asked for.
    """

    text_logit: np.ndarray
    tabular_logit: np.ndarray
    probability: np.ndarray
    attention: np.ndarray


def scores_of(f: np.ndarray, g: np.ndarray, attention: np.ndarray) -> Scores:
    """Scores with their probabilities."""
    logit = f.astype(np.float64) + g
    return Scores(
        text_logit=f,
        tabular_logit=g,
        probability=1 / (1 + np.exp(-np.clip(logit, -50, 50))),
        attention=attention,
    )


@torch.inference_mode()
def score_rows(
    model: AdditiveModel,
    collator: Collator,
    vectors_TE: Tensor,
    rows: np.ndarray,
    *,
    past_only: bool = False,
    with_attention: bool = False,
) -> Scores:
    """Score rows of an examples folder.

    Args:
        model: in evaluation mode.
        collator: makes their batches.
        vectors_TE: vector of every text, by text id.
        rows: (k,) row numbers.
        past_only: g alone; f is 0.
        with_attention: keep the attention, (k, H) float32.

    Returns:
        Scores in the order of `rows`.
    """
    device = str(vectors_TE.device)
    f = np.zeros(len(rows), dtype=np.float32)
    g = np.zeros_like(f)
    width = max(1, collator.interaction_histories.longest) if with_attention else 0
    attention = np.zeros((len(f), width), dtype=np.float32)
    at_once: dict[str, int] = {}

    def past(chunk: np.ndarray) -> None:
        numbers, codes = collator.features(rows[chunk])
        g[chunk] = model.past(numbers.to(device), codes.to(device)).cpu().numpy()

    def both(chunk: np.ndarray) -> None:
        batch, text_ids = collator.batch(rows[chunk])
        vectors = vectors_TE[torch.from_numpy(text_ids).to(device)]
        parts = model.parts(batch.to(device), vectors, with_attention=with_attention)
        f[chunk], g[chunk] = parts.text_logit.cpu().numpy(), parts.tabular_logit.cpu().numpy()
        if parts.attention is not None:
            attention[chunk, : parts.attention.shape[1]] = parts.attention.cpu().numpy()

    chunks = tabular_batches(np.arange(len(rows)), PAST_CHUNK) if past_only else collator.chunks(rows)
    for chunk in distributed.interleaved_shard(chunks):
        in_microbatches(past if past_only else both, chunk, name="rows to score", sizes=at_once)
    return scores_of(distributed.all_reduce(f), distributed.all_reduce(g), distributed.all_reduce(attention))
