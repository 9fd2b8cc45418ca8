"""What the training tests share: a small examples folder, a tiny encoder, a fitted bundle."""

from pathlib import Path

import pytest

from tests.training.synthetic import write_encoder, write_examples
from training.config.recipe import Recipe, read_recipe


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def recipe(encoder: Path) -> Recipe:
    return read_recipe(None).updated(
        encoder={"name": str(encoder), "trainable_layers": 1, "max_tokens": 24},
        tabular_model={
            "ensemble_size": 2,
            "hidden_size": 16,
            "epochs": 4,
            "learning_rate": 2e-2,
            "batch_size": 256,
            "negatives_per_positive": 4.0,
        },
        text_model={"hidden_size": 16, "projection_size": 8},
        pretraining={
            "next_interaction_epochs": 2,
            "next_interaction_steps": 6,
            "next_interaction_batch_size": 16,
            "next_interaction_candidates": 4,
        },
        finetuning={"epochs": 2, "texts_per_step": 4, "negatives_per_positive": 4.0},
    )


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def short(recipe: Recipe) -> Recipe:
    """One epoch of what cannot be left out."""
    return recipe.updated(
        early_stopping={"refit": False},
        finetuning={"epochs": 1},
        tabular_model={"epochs": 1},
        pretraining={"next_interaction_epochs": 0},
    )


@pytest.fixture(scope="session")
def fitted(examples: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory):
    from tests.training.fits import run

    return run(examples, recipe, tmp_path_factory.mktemp("fitted"))
