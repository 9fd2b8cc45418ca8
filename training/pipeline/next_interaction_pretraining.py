"""Pretraining f without labels: which topics does a user interact with in the window after a time?

A step takes some next-interaction windows and some topics, and asks each user about all of them. A campaign often
covers a few neighbouring topics, so a candidate is a topic, or a mixture of one and its neighbours; it is positive
for a user who interacts with any of them. Topics are drawn by their popularity to the power POWER, and the other
users' positives are the negatives (in-batch): a popular topic is a frequent negative as well, so popularity alone
explains little.

Shapes: S windows in a step, C candidates, K known topics, E width of a text's vector, H history.
"""

import numpy as np
import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.interaction_history import NextInteractions
from training.models.text_match import MatchInputs, TextMatch

POWER = 0.75
NEIGHBOURS = 12
MIXED = 4  # most topics of one candidate


class NextInteractionObjective:
    """Batches and loss of learning from next interactions.

    Args:
        data: the examples, with next interactions.
        next_interactions: theirs, by window.
        chosen: numbers of the windows to learn from.
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
        """An epoch's windows, `next_interaction_batch_size` at a time."""
        size = self.recipe.pretraining.next_interaction_batch_size
        drawn = np.concatenate(
            [
                rng.permutation(self.chosen)
                for _ in range(-(-self.recipe.pretraining.next_interaction_steps * size // len(self.chosen)))
            ]
        )[: self.recipe.pretraining.next_interaction_steps * size]
        return np.array_split(drawn, -(-len(drawn) // size))

    def loss(self, text_model: TextMatch, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Mean binary cross-entropy of some windows with candidates drawn for this step."""
        weight_CK = self._topic_weights(text_model.topics, rng)
        candidates = nn.functional.normalize(
            torch.from_numpy(weight_CK).to(text_model.topics.device) @ text_model.topics
        )
        text_ids, row_of_text = self.next_interactions.texts_of(rows)
        slots = self.slot[text_ids]
        interacted_SK = np.zeros((len(rows), weight_CK.shape[1]), dtype=np.float32)
        interacted_SK[row_of_text[slots >= 0], slots[slots >= 0]] = 1
        label_SC = (interacted_SK @ (weight_CK > 0).astype(np.float32).T) > 0
        logit, _ = text_model.logits(self._inputs(text_model, rows, candidates))
        label = torch.from_numpy(label_SC.astype(np.float32).ravel()).to(logit.device)
        return nn.functional.binary_cross_entropy_with_logits(logit, label)

    def _topic_weights(self, topics_KE: Tensor, rng: np.random.Generator) -> np.ndarray:
        """Weights of topics in this step's candidates, (C, K) float32."""
        if self._near is None:
            most = min(NEIGHBOURS + 1, len(topics_KE))
            chunks = [(chunk @ topics_KE.T).topk(most, dim=1).indices for chunk in topics_KE.split(1024)]
            self._near = torch.cat(chunks).cpu().numpy()
        seeds = rng.choice(len(self.popularity), self.num_candidates, replace=False, p=self.popularity)
        near = np.concatenate([seeds[:, None], rng.permuted(self._near[seeds][:, 1:], axis=1)], axis=1)[
            :, :MIXED
        ]
        kept = np.arange(near.shape[1]) < rng.integers(1, MIXED + 1, len(seeds))[:, None]
        weight = rng.gamma(2.0, size=near.shape) * kept
        weights = np.zeros((len(seeds), len(self.popularity)), dtype=np.float32)
        np.put_along_axis(weights, near, weight.astype(np.float32), axis=1)
        return weights

    def _inputs(self, text_model: TextMatch, rows: np.ndarray, candidates: Tensor) -> MatchInputs:
        device, count = candidates.device, len(candidates)
        history_ids = self.next_interactions.history_id[rows]
        text_ids, features = self.data.interaction_histories.padded(history_ids)
        slots = np.where(text_ids >= 0, self.slot[text_ids], -1)
        met = np.unique(slots[slots >= 0])
        met = met if len(met) else np.array([0])
        return MatchInputs(
            history=torch.from_numpy(np.where(slots >= 0, np.searchsorted(met, slots), -1)).to(device),
            features=torch.from_numpy(features).to(device),
            topics=text_model.topics[torch.from_numpy(met).to(device)],
            candidates=candidates,
            queries=torch.zeros_like(candidates),
            query_similarity=torch.zeros(count, device=device),
            user=torch.arange(len(rows), device=device).repeat_interleave(count),
            candidate_query=torch.arange(count, device=device).repeat(len(rows)),
        )
