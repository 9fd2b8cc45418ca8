"""`python -m orchestration rollback`, `unpin` and `status`, as a user starts them."""

import getpass
import os
import subprocess
import sys
import time

import pytest

from expectations.contracts.bundle import bundle_hash
from orchestration.local.instance import PROJECT
from serving.release.pointer import CURRENT, DeploymentPointer
from tests.serving.release.conftest import SmallRelease

pytestmark = pytest.mark.slow


@pytest.fixture(name="release")
def _release(tmp_path, bento_home):
    return SmallRelease(root=tmp_path)


def orchestration(release, *arguments):
    argv = [sys.executable, "-m", "orchestration", *arguments]
    environ = {**os.environ, "RECOMMENDER_HOME": str(release.root)}
    return subprocess.run(argv, env=environ, cwd=PROJECT, capture_output=True, text=True, check=False)


def test_a_person_rolls_back_within_seconds_and_lifts_the_pin(release):
    assert orchestration(release, "status").stdout.endswith("no model was deployed\n")
    refused = orchestration(release, "rollback")
    assert refused.returncode == 1
    assert "no model that serves" in refused.stderr and "Traceback" not in refused.stderr
    names = []
    for name in ("first", "second", "third"):
        bundle = release.bundle(name)
        release.put(bundle)
        names.append(bundle_hash(bundle))
    served = orchestration(release, "status").stdout.splitlines()[-1]
    assert served.startswith(f"model {names[2][:12]} serves since 20") and served.endswith(", not pinned")

    begun = time.monotonic()
    done = orchestration(release, "rollback", "--reason", "too many coupons")
    assert time.monotonic() - begun < 5
    assert done.returncode == 0, done.stderr
    assert f"model {names[1][:12]} is pinned" in done.stdout
    assert f"by {getpass.getuser()}: too many coupons" in done.stdout
    assert DeploymentPointer.read(release.folder / CURRENT).bundle == names[1]
    assert orchestration(release, "status").stdout.splitlines()[-1] == done.stdout.strip()

    assert orchestration(release, "rollback", "--to", names[0][:12]).returncode == 0
    assert DeploymentPointer.read(release.folder / CURRENT).bundle == names[0]
    unknown = orchestration(release, "rollback", "--to", "xyz")
    assert unknown.returncode == 1 and names[2][:12] in unknown.stderr
    assert "the next run deploys" in orchestration(release, "unpin").stdout
    assert orchestration(release, "unpin").stdout == "no model is pinned\n"
    assert orchestration(release, "status").stdout.endswith(", not pinned\n")
