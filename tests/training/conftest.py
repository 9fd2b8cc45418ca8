"""What the training tests share: a small examples folder, a tiny encoder, a fitted bundle."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.synthetic import write_encoder, write_examples
from training.config.recipe import Recipe, read_recipe


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def recipe(encoder: Path) -> Recipe:
    return replace(
        read_recipe(None),
        encoder=str(encoder),
        trainable_layers=1,
        max_tokens=24,
        members=2,
        tabular_width=16,
        tabular_epochs=4,
        tabular_learning_rate=2e-2,
        tabular_batch=256,
        words_width=16,
        channel_width=8,
        purchase_epochs=2,
        purchase_steps=6,
        purchases_per_step=16,
        topics_per_step=4,
        epochs=2,
        texts_per_step=4,
        negatives=0.5,
        tabular_negatives=0.5,
    )


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def fitted(examples: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory):
    from training.pipeline.fit import fit

    folder = tmp_path_factory.mktemp("fitted")
    return fit(
        examples, recipe, out=folder / "bundles", work=folder / "work", log_dir=folder / "tb", progress=False
    )
