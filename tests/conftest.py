"""All tests: nothing reports to anybody, nothing is downloaded, the user's own settings stay outside."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from expectations.telemetry import switch_off
from orchestration.local.instance import DEFAULTS


def pytest_configure():
    for name in [name for name in os.environ if name.startswith("RECOMMENDER_")]:
        del os.environ[name]
    os.environ.update(DEFAULTS)
    switch_off(os.environ)


@pytest.fixture(scope="session")
def bento_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """BentoML's stores of all tests: it reads its variable once a process."""
    home = tmp_path_factory.mktemp("bentoml")
    before = os.environ.get("BENTOML_HOME")
    os.environ["BENTOML_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["BENTOML_HOME"]
    else:
        os.environ["BENTOML_HOME"] = before
