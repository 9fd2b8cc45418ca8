"""What the tests of language models share."""

from pathlib import Path

import pytest

from tests.training.language_models import FAMILIES, write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder for each family of models."""
    place: Path = tmp_path_factory.mktemp("models")
    return {family: str(write_model(place / family, family)) for family in FAMILIES}
