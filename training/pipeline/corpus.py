"""Every text of a fit, encoded by the language model that it begins with; that beginning can be restored."""

import copy
from typing import TYPE_CHECKING

from torch import Tensor

from training.config.recipe import Recipe
from training.language.adapters import NONE, Adapter
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings
from training.runtime.checkpoint import restore, trainable_state

if TYPE_CHECKING:
    from training.pipeline.warm_start import Champion


class EncodedCorpus:
    """A language model, and its vectors of every text.

    Args:
        texts: distinct texts, by `text_id`.
        recipe: names the language model and says how it reads.
        champion: the bundle whose language model it is; None: the pretrained one.
        device: where it runs.

    Attributes:
        encoder: the language model.
        embeddings: the texts with their vectors as they are now.
        pretrained_vectors: (T, E) the texts' vectors before any fine-tuning.
    """

    def __init__(self, texts: list[str], recipe: Recipe, champion: "Champion | None", device: str) -> None:
        self.encoder = TextEncoder.load(
            champion.encoder if champion else recipe.encoder.name,
            max_tokens=recipe.encoder.max_tokens,
            trainable_layers=recipe.encoder.trainable_layers,
            pooling=recipe.encoder.pooling,
            adapter=_adapter(recipe),
        ).to(device)
        self.embeddings = TextEmbeddings(
            self.encoder,
            texts,
            batch=recipe.encoder.batch_size,
            device=device,
            token_dropout=recipe.encoder.token_dropout,
        )
        self.embeddings.cache_frozen_layers()
        if champion:
            champion.fill(self.embeddings, texts)
        else:
            self.embeddings.refresh()
        self._initial_weights = trainable_state({"encoder": self.encoder})
        self._vectors = self.embeddings.vectors.clone()
        self.pretrained_vectors = (
            champion.texts_before(texts, recipe).to(device) if champion else self._vectors
        )

    def starting_from(self, weights: dict[str, Tensor]) -> "EncodedCorpus":
        """The same language model and texts, but these weights are the beginning."""
        restore({"encoder": self.encoder}, weights)
        self.embeddings.refresh()
        other = copy.copy(self)
        other._initial_weights, other._vectors = weights, self.embeddings.vectors.clone()
        return other

    def reset(self) -> None:
        """Put weights and vectors back to the initial ones."""
        restore({"encoder": self.encoder}, self._initial_weights)
        self.encoder.eval()
        self.embeddings.vectors.copy_(self._vectors)


def _adapter(recipe: Recipe) -> Adapter | None:
    """What the recipe says of adapters."""
    if recipe.encoder.adapter == NONE:
        return None
    return Adapter(kind=recipe.encoder.adapter, rank=recipe.encoder.adapter_rank, seed=recipe.seed)
