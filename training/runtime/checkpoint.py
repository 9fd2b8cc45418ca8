"""Checkpoints: one safetensors file, tensors and state together, replaced as a whole after every epoch.

Training state is JSON in the file's header, so tensors and state can never be of two different epochs. Nothing is
pickled.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from expectations.errors import TransientError
from expectations.storage.atomic import replacing

FILE = "checkpoint.safetensors"
PRETRAINED, FROZEN = "pretrained", "frozen"


@dataclass(kw_only=True)
class TrainingState:
    """How far a fit has come."""

    phase: str  # the one under way
    epoch: int = 0  # epochs of it that are done
    best_epoch: int = 0  # 0: none so far
    best_value: float | None = None  # that epoch's metric
    results: dict[str, Any] = field(default_factory=dict)  # what finished phases found
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry for each epoch of every phase


class Checkpoints:
    """The checkpoint file of one fit.

    Args:
        folder: where it lies.
        key: fingerprint of recipe and data; the checkpoint of another fit is not used.

    Attributes:
        carried: tensors that outlive their phase, by prefix: of the language model after pretraining, of f and g before
            fine-tuning; they lie in every checkpoint.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / FILE
        self.key = key
        self.carried: dict[str, dict[str, Tensor]] = {PRETRAINED: {}, FROZEN: {}}

    def save(self, tensors: dict[str, Tensor], state: TrainingState) -> None:
        """Replace the checkpoint.

        Raises:
            TransientError: it could not be written (disk full); the former one is intact.
        """
        header = {"key": self.key, "state": json.dumps(asdict(state))}
        every = dict(tensors)
        for prefix, carried in self.carried.items():
            every |= with_prefix(prefix, carried)
        flat = {key: tensor.detach().cpu().contiguous() for key, tensor in every.items()}
        try:
            with replacing(self.path) as temporary:
                save_file(flat, temporary, metadata=header)
        except (OSError, SafetensorError) as error:
            raise TransientError(
                f"checkpoint {self.path} cannot be written ({error}); free disk space and run again: "
                "training goes on from the last checkpoint"
            ) from error

    def load(self) -> tuple[dict[str, Tensor], TrainingState] | None:
        """The checkpoint of this fit, or None where there is none that can be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("key") != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, TrainingState(**json.loads(header["state"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def remove(self) -> None:
        """Forget the fit."""
        self.path.unlink(missing_ok=True)


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix.`, without it."""
    return {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}.")
    }


def trainable_state(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Copies of the parameters that learn and of all else that is saved, by "module.parameter"."""
    return {
        f"{name}.{key}": tensor.detach().clone()
        for name, module in modules.items()
        for key, tensor in trainable_tensors(module)
    }


def restore(modules: dict[str, nn.Module], tensors: dict[str, Tensor]) -> None:
    """Put back what `trainable_state` copied."""
    for name, module in modules.items():
        module.load_state_dict({**module.state_dict(), **select_prefix(name, tensors)})


def trainable_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What of a module's `state_dict` learns or is saved, by name: all but frozen parameters."""
    every = module.named_parameters(remove_duplicate=False)
    frozen = {key for key, value in every if not value.requires_grad}
    yield from ((key, value) for key, value in module.state_dict().items() if key not in frozen)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as tensors, by "parameter number.name"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, of in state.items() for name, value in of.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
