"""Distributed processes that train one model, as `torchrun` starts them; alone, every function is trivial.

Each process (a rank) has the whole model and takes its shard of every batch, of the texts to read and of the rows
to score; what they found is summed. The draws are the same everywhere, so the batches are those of one process,
and so are the figures, up to rounding and dropout. Rank 0 alone writes.

By hand, as DDP averages over ranks that all run the same number of micro-batches, where here each rank halves its
own until they fit; and accelerate's wrappers of the same calls name neither the lost process nor the remedy.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from expectations.errors import SettingError, TransientError

TIMEOUT = timedelta(minutes=10)  # with a rank that does not answer
BLOCK = 1 << 16  # rows of a table sent at once

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started with this one.

    Raises:
        SettingError: there are more of them than GPUs.
        TransientError: one cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise SettingError(
                f"process {local + 1} has no GPU, there are {count}; set --nproc-per-node {count}"
            )
        torch.cuda.set_device(local)
    _collective(distributed.init_process_group, "nccl" if cuda else "gloo", timeout=TIMEOUT)
    yield
    distributed.destroy_process_group()  # not after an error: with a rank gone it may wait for ever


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """How many processes there are."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def shard(rows: np.ndarray) -> np.ndarray:
    """This rank's shard of some rows, of nearly equal length in every rank; neighbours stay together."""
    return np.array_split(rows, world_size())[rank()]


def interleaved_shard(items: Iterable[T]) -> Iterator[T]:
    """Every world_size-th item, from this rank's on."""
    return islice(items, rank(), None, world_size())


def all_reduce(values: np.ndarray) -> np.ndarray:
    """Sum over the ranks, elementwise."""
    if world_size() == 1:
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(_device())
    _collective(distributed.all_reduce, tensor)
    return tensor.cpu().numpy()


def all_reduce_rows(table: Tensor, rows: Tensor) -> None:
    """Bring rows of a table to what the one rank says that has written them; the others hold 0 there."""
    for block in rows.split(BLOCK) if world_size() > 1 else ():
        values = table[block].to(_device())
        _collective(distributed.all_reduce, values)
        table[block] = values.to(table.device)


def all_reduce_gradients(parameters: Sequence[nn.Parameter], loss: float) -> float:
    """Sum gradients and the loss over the ranks; a parameter that no rank has a gradient for has none after."""
    if world_size() == 1:
        return loss
    device = parameters[0].device
    there = [float(parameter.grad is not None) for parameter in parameters]
    gradients = [
        torch.zeros(parameter.numel(), device=device)
        if parameter.grad is None
        else parameter.grad.float().flatten()
        for parameter in parameters
    ]
    flat = torch.cat([*gradients, torch.tensor([*there, loss], device=device)])
    _collective(distributed.all_reduce, flat)
    *summed, there_sum, total = flat.split([*(parameter.numel() for parameter in parameters), len(there), 1])
    for parameter, gradient, count in zip(parameters, summed, there_sum.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None
    return float(total)


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Bring tensors to what rank 0 has."""
    if world_size() > 1:
        for tensor in tensors:
            here = tensor.detach().to(_device()).contiguous()
            _collective(distributed.broadcast, here, 0)
            with torch.no_grad():
                tensor.copy_(here)


def broadcast_object(make: Callable[[], T]) -> T:
    """What rank 0 makes, in every rank."""
    if world_size() == 1:
        return make()
    box: list[Any] = [make() if rank() == 0 else None]
    _collective(distributed.broadcast_object_list, box, 0)
    return box[0]


def gathered(own: Iterable[T]) -> list[T]:
    """What `interleaved_shard` dealt out and every process made something of, again in one order, in every process."""
    boxes: list[Any] = [list(own)]
    if world_size() > 1:
        boxes *= world_size()
        _collective(distributed.all_gather_object, boxes, boxes[0])
    return [boxes[number % len(boxes)][number // len(boxes)] for number in range(sum(map(len, boxes)))]


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def _collective(act: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    try:
        act(*arguments, **named)
    except RuntimeError as error:
        raise TransientError(
            "another process of this run has ended or does not answer "
            f"({str(error).splitlines()[0]}); see its message, then start torchrun again with the same --work: "
            "training goes on from the last checkpoint"
        ) from error
