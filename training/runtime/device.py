"""Where models run, in which precision, and by how many threads."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def first_device() -> str:
    """The first GPU, or where there is none, the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def mixed_precision(device: str) -> AbstractContextManager[Any]:
    """bfloat16 where the card computes in it; single precision on others and on a CPU.

    Not float16: its range is too small for gradients that are not scaled.
    """
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def num_threads() -> int:
    """Threads of a library beside torch: torch's, or under torchrun this process's part of the cores.

    torchrun sets OMP_NUM_THREADS to 1 where nobody set it, and torch follows.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes == 1:
        return torch.get_num_threads()
    return max(torch.get_num_threads(), len(os.sched_getaffinity(0)) // processes)
