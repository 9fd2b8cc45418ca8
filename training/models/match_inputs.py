"""Histories and candidates that are matched, and the weighted sums over histories.

Shapes: N rows, U users' histories, P distinct (candidate, query) pairs, V distinct texts, E width of a
text's vector, H length of a history, X entry features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.data.interaction_history import SENTIMENT

ENTRY_FEATURES = 5


@dataclass(frozen=True, kw_only=True)
class MatchInputs:
    """Histories and candidates that are matched.

    Attributes:
        history: (U, H) places among the topics; -1: padding.
        features: (U, H, 4) events, amount, days ago, sentiment.
        topics: (V, E) relative to their mean, of length 1.
        candidates: (P, E) relative to their mean, of length 1.
        queries: (P, E) vectors of the queries, 0 where there is none.
        query_similarity: (P,) cosine of candidate and query.
        user, candidate_query: (N,) history and pair of each row.
        max_similarity: (P,) greatest cosine similarity of each candidate with a known topic; None: not computed yet.
    """

    history: Tensor
    features: Tensor
    topics: Tensor
    candidates: Tensor
    queries: Tensor
    query_similarity: Tensor
    user: Tensor
    candidate_query: Tensor
    max_similarity: Tensor | None = None


def entry_features(raw_NH4: Tensor) -> Tensor:
    """Events, amount and days ago as X numbers near 1: logarithms, two rates of decay, a constant."""
    events, amounts, days = raw_NH4[:, :, :SENTIMENT].clamp_min(0).unbind(2)
    decays = [torch.exp(-days / 14), torch.exp(-days / 90)]
    ones = torch.ones_like(days)
    return torch.stack([torch.log1p(events), torch.log1p(amounts) / 3, *decays, ones], dim=2)


def weighted_sums(index_UH: Tensor, table_VP: Tensor, weights_UH: Tensor) -> Tensor:
    """Sum over each history of the table's rows by weight, (U, P)."""
    return nn.functional.embedding_bag(index_UH, table_VP, per_sample_weights=weights_UH, mode="sum")
