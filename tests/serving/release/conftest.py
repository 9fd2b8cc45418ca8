"""A deployment of bundles that are whole but small: what is released is never loaded here."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from expectations.contracts.bundle import Manifest, write_manifest
from expectations.contracts.gate_decision import GateDecision, RuleResult, write_gate_decision
from expectations.storage.atomic import write_json
from expectations.storage.hashes import file_hash
from serving.release.deployment import Deployed, DeploymentContext, deploy
from serving.release.release import Release
from tests.serving.shop import HORIZON, SOURCE

PRELUDE = """
import json, sys, time
from pathlib import Path
from serving.release.deployment import *
from serving.release.bento_store import *
def context(rows):
    values = {name: Path(value) for name, value in json.loads(sys.argv[1]).items()}
    values["store"] = values["store"].with_name(rows)
    return DeploymentContext(**values, check=lambda _: None)
folder, decisions = Path(sys.argv[2]), Path(sys.argv[3])
bundles = [Path(path) for path in sys.argv[4:]]
def put(bundle, rows="v1"):
    deploy(bundle, gate_decisions=decisions, deployment=folder, context=context(rows))
print("ready", flush=True)
sys.stdin.readline()
"""


@dataclass(frozen=True, kw_only=True)
class SmallRelease:
    """A home's folders for releases."""

    root: Path
    checked: list[Release] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "deployment"

    @property
    def decisions(self) -> Path:
        return self.root / "gate_decisions"

    def context(self, rows: str = "v1") -> DeploymentContext:
        """What is served with, from a version of the feature rows."""
        source, store = self.root / "source.toml", self.root / "stores" / rows
        write_json(store / "facts.json", {"horizon": HORIZON.isoformat()})
        (store / "catalogue.parquet").write_text("rows")
        source.write_text(SOURCE)
        return DeploymentContext(source=source, store=store, check=self.checked.append)

    def bundle(self, name: str, *, approved: bool = True, **manifest: Any) -> Path:
        """A bundle with one file, and the gate's decision on it."""
        folder = self.root / "bundles" / name
        folder.mkdir(parents=True)
        (folder / "weights").write_text(name)
        values: dict[str, Any] = {
            "source": "small_shop",
            "created_at": f"{self.root} {name}",
            "feature_service": "f",
            "numeric": (),
            "categorical": (),
        }
        values |= {name: {} for name in ("recipe", "data", "metrics", "versions")}
        values["files"] = {"weights": file_hash(folder / "weights")}
        digest = write_manifest(folder, Manifest(**{**values, **manifest}))
        self.decide(digest, approved=approved)
        return folder

    def decide(self, digest: str, *, approved: bool) -> None:
        """Write the gate's decision."""
        rule = RuleResult(rule="auc", value=0.4, bound=0.5, passed=approved, reason="AUC 0.40 is below 0.50")
        decision = GateDecision(bundle=digest, approved=approved, created_at="2020-03-01", rules=(rule,))
        write_gate_decision(self.decisions, decision)

    def put(self, bundle: Path, rows: str = "v1") -> Deployed:
        """Deploy a bundle."""
        return deploy(
            bundle, gate_decisions=self.decisions, deployment=self.folder, context=self.context(rows)
        )

    def process(self, code: str, *bundles: Path) -> "subprocess.Popen[str]":
        """A process that has `put`, `context`, `folder` and `bundles`, and begins when it is sent a line."""
        context = self.context()
        values = json.dumps({"source": str(context.source), "store": str(context.store)})
        argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), values, self.folder, self.decisions]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = subprocess.Popen([*map(str, argv), *map(str, bundles)], text=True, **pipes)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.communicate()[1]
        return child


@pytest.fixture(name="release")
def _release(tmp_path: Path, bento_home: Path) -> SmallRelease:
    return SmallRelease(root=tmp_path)


@pytest.fixture(name="holder")
def _holder(release: SmallRelease) -> Iterator[Any]:
    """Starts processes that hold a lock until they are killed."""
    started = []

    def hold(lock: str) -> "subprocess.Popen[str]":
        child = release.process(f"with {lock}:\n    print('held', flush=True)\n    time.sleep(600)")
        started.append(child)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "held\n", child.communicate()[1]
        return child

    yield hold
    for child in started:
        child.send_signal(signal.SIGKILL)
        child.communicate()
