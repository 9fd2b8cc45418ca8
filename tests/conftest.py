"""All tests: nothing reports to anybody, nothing is downloaded, the user's own settings stay outside."""

import os

from orchestration.instance import DEFAULTS, QUIET


def pytest_configure():
    for name in [name for name in os.environ if name.startswith("RECOMMENDER_")]:
        del os.environ[name]
    os.environ.update({**DEFAULTS, **QUIET})
