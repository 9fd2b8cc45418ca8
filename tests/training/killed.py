"""A fit that is killed after some epochs, and what it must come to when it goes on."""

from collections.abc import Callable
from typing import Any

import pytest

from expectations.contracts.bundle import verify_bundle
from training.pipeline.fit import FitResult
from training.runtime.checkpoint import Checkpoints


def goes_on(fit: Callable[[], FitResult], *, killed_after: int) -> FitResult:
    """Run a fit twice in the same folder: it is killed after some epochs, then it goes on to its end."""
    real, count = Checkpoints.save, 0

    def killed(self: Checkpoints, *arguments: Any) -> None:
        nonlocal count
        real(self, *arguments)
        count += 1
        if count == killed_after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit()
    return fit()


def weights_of(result: FitResult) -> dict[str, str]:
    """Hash of each file of weights in a fit's bundle."""
    files = verify_bundle(result.bundle)[0].files
    return {name: digest for name, digest in files.items() if name.endswith((".safetensors", ".txt"))}
