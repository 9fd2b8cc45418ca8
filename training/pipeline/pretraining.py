"""Learning without labels: first the language model alone from texts, then f from users' next interactions.

A shop's language: what learns is what learns later too (recipe `trainable_layers`, `adapter`), and the head that
guesses tokens is thrown away after it. Only texts that were known before the validation part are read, and none that
is first seen there or in the test part; the refit begins with the language model that this phase left.

Next interactions: which topics does a user interact with in the window after a time? A step takes some windows and
some topics, and asks each user about all of them. A campaign often covers a few neighbouring topics, so a candidate
is a topic, or a mixture of one and its neighbours; it is positive for a user who interacts with any of them. Topics
are drawn by their popularity to the power POWER, and the other users' positives are the negatives (in-batch): a
popular topic is a frequent negative as well, so popularity alone explains little.

Shapes: S windows in a step, C candidates, K known topics, E width of a text's vector, H history.
"""

import numpy as np
import torch
from torch import Tensor, nn

from expectations.errors import DataError, SettingError
from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.interaction_history import NextInteractions
from training.data.sampling import distinct_values, rows_of
from training.data.split import TRAIN
from training.language.encoder import TextEncoder
from training.language.pretraining import pretraining_objective
from training.language.text_embeddings import TextEmbeddings
from training.models.text_match import MatchInputs, TextMatch
from training.pipeline.context import LEARNED_BY_LABELS, FitContext
from training.pipeline.trainer import Phase

POWER = 0.75
NEIGHBOURS = 12
MIXED = 4  # most topics of one candidate


def language_pretraining_phase(
    name: str, recipe: Recipe, encoder: TextEncoder, table: TextEmbeddings, text_ids: np.ndarray
) -> Phase | None:
    """The phase in which the language model learns from texts; None where the recipe leaves it out.

    Args:
        name: the phase's name.
        recipe: objective, epochs, learning rate, texts in a step.
        encoder: the language model; changed as the phase goes on.
        table: the tokens of all texts.
        text_ids: the texts to learn from, see `known_text_ids`.

    Raises:
        SettingError: the objective does not fit the language model, or nothing of it learns.
        DataError: no text holds a word.
    """
    settings = recipe.pretraining
    if settings.language_epochs == 0:
        return None
    if not encoder.is_trainable:
        raise SettingError(
            f"language_epochs is {settings.language_epochs}, but trainable_layers is "
            f"{recipe.encoder.trainable_layers}: nothing "
            "of the language model learns; set trainable_layers to -1 or above 0, or language_epochs to 0"
        )
    of_empty_text = int(encoder.tokenize([""]).lengths[0])
    non_empty = text_ids[table.lengths[text_ids] > of_empty_text]
    if not len(non_empty):
        raise DataError(f"none of the {len(text_ids)} texts known before the validation part holds a word")
    torch.manual_seed(recipe.seed)
    objective = pretraining_objective(settings.language_objective, encoder).to(table.device)
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    return Phase(
        name=name,
        modules={"encoder": encoder, "objective": objective},
        groups=[{"params": [*learning, *objective.parameters()], "lr": settings.language_learning_rate}],
        planned=settings.language_epochs,
        epochs=settings.language_epochs,
        batches=lambda rng: length_batches(non_empty, table.lengths, settings.language_batch_size, rng),
        loss=lambda chosen, _rng: objective.loss(encoder, *table.padded(chosen)),
    )


def known_text_ids(data: Examples) -> np.ndarray:
    """Numbers of the texts known before the validation part, ascending.

    They are the training part's candidates, queries and histories, and the next interactions that
    were over by then.
    """
    train, columns = rows_of(data.part, TRAIN), data.columns
    history_ids, later = [distinct_values(columns, "history_id", train)], np.zeros(0, dtype=np.int64)
    if data.next_interactions is not None:
        over = data.next_interactions.ended_by(columns["event_timestamp"][data.part != TRAIN].min())
        history_ids.append(data.next_interactions.history_id[over])
        later, _ = data.next_interactions.texts_of(over)
    before = data.interaction_histories.texts(np.unique(np.concatenate(history_ids)))
    found = [distinct_values(columns, name, train) for name in ("text_id", "query_id")]
    text_ids = np.unique(np.concatenate([*found, before, later])).astype(np.int64)
    return text_ids[text_ids >= 0]


def length_batches(
    text_ids: np.ndarray, lengths: np.ndarray, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of at most `size` texts of nearly equal length, in random order: hardly any padding is read."""
    order = text_ids[np.lexsort((rng.random(len(text_ids)), lengths[text_ids]))]
    batches = np.array_split(order, -(-len(order) // size))
    return [batches[place] for place in rng.permutation(len(batches))]


class NextInteractionObjective:
    """Batches and loss of learning from the next interactions of the windows numbered `chosen`."""

    def __init__(self, context: FitContext, next_interactions: NextInteractions, chosen: np.ndarray) -> None:
        self.data, self.next_interactions, self.chosen = context.data, next_interactions, chosen
        self.settings, topic_ids = context.recipe.pretraining, context.topic_ids
        self.slot = np.full(len(self.data.texts), -1)
        self.slot[topic_ids] = np.arange(len(topic_ids))
        slots = self.slot[next_interactions.texts_of(chosen)[0]]
        popularity = np.bincount(slots[slots >= 0], minlength=len(topic_ids)) ** POWER
        self.popularity = popularity / max(popularity.sum(), 1)
        self.num_candidates = min(self.settings.next_interaction_candidates, int((popularity > 0).sum()))
        self._near: np.ndarray | None = None

    def batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """An epoch's windows, `next_interaction_batch_size` at a time."""
        size = self.settings.next_interaction_batch_size
        count = self.settings.next_interaction_steps * size
        rounds = [rng.permutation(self.chosen) for _ in range(-(-count // len(self.chosen)))]
        drawn = np.concatenate(rounds)[:count]
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
        others = rng.permuted(self._near[seeds][:, 1:], axis=1)
        near = np.concatenate([seeds[:, None], others], axis=1)[:, :MIXED]
        mixed = np.arange(near.shape[1]) < rng.integers(1, MIXED + 1, len(seeds))[:, None]
        weight = rng.gamma(2.0, size=near.shape) * mixed
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


def next_interaction_phase(context: FitContext, name: str) -> Phase | None:
    """Pretraining of f on next interactions over when the validation part began; None without any."""
    next_interactions, settings = context.data.next_interactions, context.recipe.pretraining
    text_model, chosen = context.model.text_model, context.known_next_interactions()
    if next_interactions is None or not len(chosen) or settings.next_interaction_epochs == 0:
        return None
    objective = NextInteractionObjective(context, next_interactions, chosen)
    if objective.num_candidates == 0:
        return None
    learning = [
        value for key, value in text_model.named_parameters() if not key.startswith(LEARNED_BY_LABELS)
    ]
    return Phase(
        name=name,
        modules={"text_model": text_model},
        groups=[{"params": learning, "lr": settings.next_interaction_learning_rate}],
        planned=settings.next_interaction_epochs,
        epochs=settings.next_interaction_epochs,
        batches=objective.batches,
        loss=lambda rows, rng: objective.loss(text_model, rows, rng),
    )
