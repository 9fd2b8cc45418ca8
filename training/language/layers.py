"""The layers of a transformer: found among its modules, and for a while replaced, so that a part of it runs alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def layers_of(model: Any) -> list[nn.Module]:
    """The model's layers from bottom to top; none where they cannot be told from other modules."""
    number = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return list(module)
    return []


@contextmanager
def replaced_forwards(
    layers: Sequence[nn.Module], forwards: Sequence[Callable[..., Tensor]]
) -> Iterator[None]:
    """For a while, layers do something else. All that the model does around them stays its own."""
    try:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def identity(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    """In place of a layer that is left out."""
    return hidden
