"""The language model reads in bf16 on a GPU; what comes out of it is float32 again."""

import numpy as np
import pytest
import torch

from training.config.recipe import Recipe
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings


@pytest.mark.parametrize("layers", [1, -1])
def test_vectors_read_in_bf16_are_float32_and_near(layers: int, recipe: Recipe) -> None:
    """With the CPU's autocast, whose lists of operations are those of a GPU where it matters here."""
    encoder = TextEncoder.load(recipe.encoder.name, max_tokens=24, trainable_layers=layers)
    texts = ["", "dog food", "fresh coffee beans", "garden flowers " * 20]
    table = TextEmbeddings(encoder, texts, batch=2)
    table.cache_frozen_layers()
    table.refresh()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = table.gather(np.arange(4), np.array([1, 3]))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, table.vectors, atol=0.02, rtol=0)
    assert not torch.equal(vectors[1], table.vectors[1])  # it was read again, in bf16
    vectors[1].sum().backward()
    gradients = [value.grad for value in encoder.parameters() if value.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
