"""Learning f without labels: which topics does a shopper turn to in the days after a moment?

A step takes some futures and some topics, and asks each shopper about all of them. A campaign often covers a
few neighbouring topics, so a candidate is a topic, or a mixture of one and its neighbours; it is answered by
a shopper who turns to any of them. Topics are drawn by their popularity to the power POWER, and the others'
answers are the negatives: a popular topic is a frequent negative as well, so popularity alone explains little.

Shapes: S futures in a step, C candidates, K known topics, E width of a text's vector, H history.
"""

import numpy as np
import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.next_interactions import NextInteractions
from training.models.text_match import MatchInputs, TextMatch

POWER = 0.75
NEIGHBOURS = 12
MIXED = 4  # most topics of one candidate


class NextInteractionObjective:
    """Batches and loss of learning from futures.

    Args:
        data: the examples, with futures.
        next_interactions: their futures.
        chosen: numbers of the futures to learn from.
        topic_ids: (K,) text ids of the known topics, ascending.
        recipe: sizes.
    """

    def __init__(
        self,
        data: Examples,
        next_interactions: NextInteractions,
        chosen: np.ndarray,
        topic_ids: np.ndarray,
        recipe: Recipe,
    ) -> None:
        self.data, self.next_interactions, self.chosen, self.recipe = data, next_interactions, chosen, recipe
        self.slot = np.full(len(data.texts), -1)
        self.slot[topic_ids] = np.arange(len(topic_ids))
        slots = self.slot[next_interactions.texts_of(chosen)[0]]
        popularity = np.bincount(slots[slots >= 0], minlength=len(topic_ids)) ** POWER
        self.popularity = popularity / max(popularity.sum(), 1)
        self.num_candidates = min(recipe.pretraining.next_interaction_candidates, int((popularity > 0).sum()))
        self._near: np.ndarray | None = None

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's futures, `purchases_per_step` at a time."""
        size = self.recipe.pretraining.next_interaction_batch_size
        drawn = np.concatenate(
            [
                rng.permutation(self.chosen)
                for _ in range(-(-self.recipe.pretraining.next_interaction_steps * size // len(self.chosen)))
            ]
        )[: self.recipe.pretraining.next_interaction_steps * size]
        return np.array_split(drawn, -(-len(drawn) // size))

    def loss(self, words: TextMatch, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Mean binary cross-entropy of some futures with candidates drawn for this step."""
        share_CK = self._draw(words.topics, rng)
        candidates = nn.functional.normalize(
            torch.from_numpy(share_CK).to(words.topics.device) @ words.topics
        )
        text_ids, of = self.next_interactions.texts_of(rows)
        slots = self.slot[text_ids]
        turned_SK = np.zeros((len(rows), share_CK.shape[1]), dtype=np.float32)
        turned_SK[of[slots >= 0], slots[slots >= 0]] = 1
        answer_SC = (turned_SK @ (share_CK > 0).astype(np.float32).T) > 0
        logit, _ = words.logits(self._meeting(words, rows, candidates))
        label = torch.from_numpy(answer_SC.astype(np.float32).ravel()).to(logit.device)
        return nn.functional.binary_cross_entropy_with_logits(logit, label)

    def _draw(self, topics_KE: Tensor, rng: np.random.Generator) -> np.ndarray:
        """Shares of topics in this step's candidates, (C, K) float32."""
        if self._near is None:
            most = min(NEIGHBOURS + 1, len(topics_KE))
            chunks = [(chunk @ topics_KE.T).topk(most, dim=1).indices for chunk in topics_KE.split(1024)]
            self._near = torch.cat(chunks).cpu().numpy()
        seeds = rng.choice(len(self.popularity), self.num_candidates, replace=False, p=self.popularity)
        near = np.concatenate([seeds[:, None], rng.permuted(self._near[seeds][:, 1:], axis=1)], axis=1)[
            :, :MIXED
        ]
        kept = np.arange(near.shape[1]) < rng.integers(1, MIXED + 1, len(seeds))[:, None]
        share = rng.gamma(2.0, size=near.shape) * kept
        shares = np.zeros((len(seeds), len(self.popularity)), dtype=np.float32)
        np.put_along_axis(shares, near, share.astype(np.float32), axis=1)
        return shares

    def _meeting(self, words: TextMatch, rows: np.ndarray, candidates: Tensor) -> MatchInputs:
        device, count = candidates.device, len(candidates)
        history_ids = self.next_interactions.history_id[rows]
        text_ids, features = self.data.histories.padded(history_ids)
        slots = np.where(text_ids >= 0, self.slot[text_ids], -1)
        met = np.unique(slots[slots >= 0])
        met = met if len(met) else np.array([0])
        return MatchInputs(
            history=torch.from_numpy(np.where(slots >= 0, np.searchsorted(met, slots), -1)).to(device),
            features=torch.from_numpy(features).to(device),
            topics=words.topics[torch.from_numpy(met).to(device)],
            candidates=candidates,
            queries=torch.zeros_like(candidates),
            query_similarity=torch.zeros(count, device=device),
            user=torch.arange(len(rows), device=device).repeat_interleave(count),
            candidate_query=torch.arange(count, device=device).repeat(len(rows)),
        )
