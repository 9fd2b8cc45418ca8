"""Where the curves of a fit go."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any


def scalar_log(folder: Path) -> AbstractContextManager[Any]:
    """TensorBoard's `SummaryWriter` for a folder, or None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # its import takes a second
    except ImportError:
        return nullcontext()
    return SummaryWriter(str(folder))
