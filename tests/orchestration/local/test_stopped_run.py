"""`python -m orchestration run` on a shop whose data are broken, in folders with awkward names, as a user starts it.

What stopped it is said on the console; no package that we use tells its makers of it; no other user can read
what it wrote.
"""

import os
import subprocess
import sys

import pytest

from expectations.telemetry import OFF
from orchestration.local.instance import DEFAULTS, PROJECT
from tests.orchestration.conftest import AWKWARD, write_broken_shop

pytestmark = pytest.mark.slow


def test_a_stopped_run_says_why_and_tells_nobody_else(tmp_path, outside):
    proxy, callers = outside
    shop, home, user = tmp_path / "shop [a]", tmp_path / AWKWARD, tmp_path / "user"
    shop.mkdir()
    home.mkdir(mode=0o755)
    user.mkdir()
    write_broken_shop(shop)
    environ = {name: value for name, value in os.environ.items() if name not in {*OFF, *DEFAULTS}}
    environ |= {"HOME": str(user), "RECOMMENDER_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
    argv = [sys.executable, "-m", "orchestration", "run", "--source", str(shop)]
    done = subprocess.run(argv, env=environ, cwd=PROJECT, capture_output=True, text=True, timeout=300)  # noqa: PLW1510
    told = done.stderr
    assert done.returncode == 1, told
    assert "validation failed: table exposures, rule exposures.item_id_known, " in told
    assert " rows, such as item_id=c99: " in told
    shared = [
        path for path in (home, *home.rglob("*")) if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ]
    assert shared == []
    assert "blocking asset check" not in told and "Traceback" not in told
    assert callers == []
    assert [path.name for path in user.rglob("*") if path.is_file()] == []
    written = {path.name for path in (home / "dagster").rglob("*")}
    assert "dagster.yaml" in written
    assert not [name for name in written if "telemetry" in name or name.endswith(".db")], written
