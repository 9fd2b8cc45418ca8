"""Scores of many rows at once, for training, bundles and evaluation."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from training.data.collate import Collator, moved
from training.data.sampling import tabular_batches
from training.models.additive import PARTS, AdditiveModel
from training.runtime import distributed
from training.runtime.memory import in_microbatches

TABULAR_CHUNK = 1024  # rows whose encoded features stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Logit parts and probabilities of k rows.

    Attributes:
        text_logit: (k,) f, of texts and context.
        tabular_logit: (k,) g, of past outcomes.
        probability: (k,) σ(f + g).
        attention: (k, H) weight of each history entry, newest first; (k, 0) where it was not asked for.
    """

    text_logit: np.ndarray
    tabular_logit: np.ndarray
    probability: np.ndarray
    attention: np.ndarray


def combined_scores(f: np.ndarray, g: np.ndarray, attention: np.ndarray) -> Scores:
    """Scores with their probabilities."""
    logit = f.astype(np.float64) + g
    return Scores(text_logit=f, tabular_logit=g, probability=expit(logit), attention=attention)


@torch.inference_mode()
def score_rows(
    model: AdditiveModel,
    collator: Collator,
    vectors_TE: Tensor,
    rows: np.ndarray,
    *,
    tabular_only: bool = False,
    with_attention: bool = False,
    trees: np.ndarray | None = None,
) -> Scores:
    """Score rows of an examples folder.

    Args:
        model: in evaluation mode.
        collator: makes their batches.
        vectors_TE: vector of every text, by text id.
        rows: (k,) row numbers.
        tabular_only: g alone; f is 0.
        with_attention: keep the attention, (k, H) float32.
        trees: (k,) the trees' logits of the rows, where they are known already.

    Returns:
        Scores in the order of `rows`.
    """
    device = str(vectors_TE.device)
    f = np.zeros(len(rows), dtype=np.float32)
    g = np.zeros_like(f)
    width = max(1, collator.interaction_histories.longest) if with_attention else 0
    attention = np.zeros((len(f), width), dtype=np.float32)
    at_once: dict[str, int] = {}

    def score_tabular(chunk: np.ndarray) -> None:
        numbers, codes = collator.features(rows[chunk])
        g[chunk] = model.tabular_logit(moved(numbers, device), moved(codes, device)).cpu().numpy()

    def score_both(chunk: np.ndarray) -> None:
        batch, text_ids = collator.batch(rows[chunk])
        vectors = vectors_TE[torch.from_numpy(text_ids).to(device)]
        logits = model.calibrated_logits(
            batch.to(device),
            vectors,
            with_attention=with_attention,
            trees_N=None if trees is None else torch.from_numpy(trees[chunk]).to(device),
        )
        f[chunk], g[chunk] = logits.text_logit.cpu().numpy(), logits.tabular_logit.cpu().numpy()
        if logits.attention is not None:
            attention[chunk, : logits.attention.shape[1]] = logits.attention.cpu().numpy()

    chunks = tabular_batches(np.arange(len(rows)), TABULAR_CHUNK) if tabular_only else collator.chunks(rows)
    for chunk in distributed.interleaved_shard(chunks):
        in_microbatches(
            score_tabular if tabular_only else score_both, chunk, name="rows to score", sizes=at_once
        )
    return combined_scores(
        distributed.all_reduce(f), distributed.all_reduce(g), distributed.all_reduce(attention)
    )


@torch.inference_mode()
def logit_parts(model: AdditiveModel, collator: Collator, vectors_TE: Tensor, rows: np.ndarray) -> np.ndarray:
    """`training.models.additive.PARTS` of some rows' logits, (k, 6) float32, as `score_rows` takes its arguments."""
    device, sizes = str(vectors_TE.device), dict[str, int]()
    parts = np.zeros((len(rows), len(PARTS)), dtype=np.float32)

    def fill(chunk: np.ndarray) -> None:
        batch, text_ids = collator.batch(rows[chunk])
        vectors = vectors_TE[torch.from_numpy(text_ids).to(device)]
        parts[chunk] = model.parts(batch.to(device), vectors).cpu().numpy()

    for chunk in distributed.interleaved_shard(collator.chunks(rows)):
        in_microbatches(fill, chunk, name="rows to score", sizes=sizes)
    return distributed.all_reduce(parts)
