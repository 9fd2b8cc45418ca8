"""Fits in a folder of their own; one that is killed after some epochs, and what it must come to when it goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expectations.contracts.bundle import verify_bundle
from training.config.recipe import Recipe
from training.pipeline.fit import FitResult, fit
from training.pipeline.trainer import Phase
from training.runtime.checkpoint import Checkpoints


def run(
    examples: Path, recipe: Recipe, folder: Path, champion: Path | None = None, parent: Path | None = None
) -> FitResult:
    """A fit whose log lies beside its checkpoints, as it does by default."""
    work = folder / "work"
    return fit(
        examples,
        recipe,
        out=folder / "out",
        work=work,
        log_dir=work / "tb",
        champion=champion,
        parent=parent,
        progress=False,
    )


def losses_of(phase: Phase | None, epochs: int) -> list[float]:
    """Each step's loss in some epochs of a phase, as it learns."""
    assert phase is not None
    optimizer, rng = torch.optim.AdamW([dict(group) for group in phase.groups]), np.random.default_rng(0)
    losses = []
    for _ in range(epochs):
        for chosen in phase.batches(rng):
            loss = phase.loss(chosen, rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


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
