"""Where models run."""

import torch


def first_device() -> str:
    """The first GPU, or where there is none, the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
