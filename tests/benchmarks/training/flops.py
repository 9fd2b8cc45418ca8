"""What the language model's arithmetic alone must cost: floating-point operations against what the machine can do."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.split import TRAIN
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings

ROWS, SECONDS = 2048, 2.0  # of the matrix products that tell what the machine can do


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Operations of the language model, in units of 10⁹.

    Attributes:
        tokens: of all distinct texts.
        padded: as many as are read, with the padding of length-sorted batches.
        reading: to read every text once with the whole model.
        refreshing: to read every text once with the layers that learn.
        learning: forward and backward through those layers for each candidate text of the training part once.
        textbook_row: forward and backward for one row of 128 tokens.
        machine: operations a second that one large float32 matrix product reaches here.
    """

    tokens: int
    padded: int
    reading: float
    refreshing: float
    learning: float
    textbook_row: float
    machine: float


def floor(data: Examples, recipe: Recipe, *, length: int) -> Floor:
    """The floor of a recipe on some examples; `length` is what the textbook pads its rows to."""
    encoder = TextEncoder.load(
        recipe.encoder.name,
        max_tokens=recipe.encoder.max_tokens,
        trainable_layers=recipe.encoder.trainable_layers,
    )
    table = TextEmbeddings(encoder, data.texts, batch=recipe.encoder.batch_size)
    layers = encoder.num_layers
    learning = layers if recipe.encoder.trainable_layers < 0 else recipe.encoder.trainable_layers
    embeddings = sum(p.numel() for name, p in encoder.model.named_parameters() if "embeddings" in name)
    each = (sum(p.numel() for p in encoder.model.parameters()) - embeddings) / max(layers, 1)
    lengths = np.sort(table.lengths)
    size = recipe.encoder.batch_size
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    candidates = np.unique(data.rows["text_id"].to_numpy()[data.part == TRAIN])

    def passes(tokens: float, num_layers: int, width: int, times: int) -> float:
        # A weight takes 2 operations a token; attention 4 · length · width a token and layer.
        attention = 4.0 * width * encoder.width
        return times * tokens * num_layers * (2 * each + attention) / 1e9

    mean = float(lengths.mean())
    return Floor(
        tokens=int(lengths.sum()),
        padded=int(sum(len(batch) * batch.max() for batch in batches)),
        reading=passes(lengths.sum(), layers, round(mean), 1),
        refreshing=passes(lengths.sum(), learning, round(mean), 1),
        learning=passes(table.lengths[candidates].sum(), learning, round(mean), 3),
        textbook_row=passes(length, layers, length, 1) + passes(length, learning, length, 2),
        machine=_machine(encoder.width),
    )


def _machine(width: int) -> float:
    """10⁹ operations a second of a matrix product of the model's own shape."""
    left, right = torch.randn(ROWS, width), torch.randn(width, 4 * width)
    left @ right
    start, times = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        left @ right
        times += 1
    return 2 * ROWS * width * 4 * width * times / (time.perf_counter() - start) / 1e9
