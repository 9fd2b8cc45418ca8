"""The whole job on one shop, and further fits to its examples, each in a process of its own that is watched."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from expectations.errors import RecommenderError
from expectations.storage.atomic import read_json, write_text
from expectations.storage.datasets import current_folder
from orchestration.home import Home
from tests.benchmarks.harness import ROOT, Facts

MIB = 2**20
POLL_SECONDS = 0.5
_STEP = re.compile(r"^\s*[✓✗] (\S+)\s+([\d.]+) s$", re.MULTILINE)


class JobError(RecommenderError):
    """A process of the benchmark ended without the result that it is for."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How a process ended.

    Attributes:
        code: its exit code.
        output: all that it printed.
        seconds: how long it took.
        peak_mib: the greatest memory of it and its children together, pages that they share counted once (PSS).
    """

    code: int
    output: str
    seconds: float
    peak_mib: int

    def last_lines(self, count: int = 6) -> str:
        """The end of what it printed."""
        return "\n".join(self.output.strip().splitlines()[-count:])


def watched(arguments: Iterable[str], *, log: Path, environment: Mapping[str, str]) -> Watched:
    """Run `python …` in the repository's root until it ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started, peak = time.perf_counter(), 0
    with log.open("w", encoding="utf-8") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while child.poll() is None:
                peak = max(peak, _memory(child.pid))
                with suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.terminate()  # the command stops what it started
                child.wait()
    return Watched(
        code=child.returncode,
        output=log.read_text(encoding="utf-8", errors="replace"),
        seconds=round(time.perf_counter() - started, 1),
        peak_mib=round(peak / MIB),
    )


def _memory(pid: int) -> int:
    """Of a process and all below it, bytes."""
    total = 0
    with suppress(psutil.Error):
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with suppress(psutil.Error):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.uss)  # Linux has PSS
    return total


def whole_job(source: Path, home: Path, recipe: Path, **environment: str) -> Facts:
    """`python -m orchestration run`: from files to the gate's decision; a rejected model is a result too.

    Raises:
        JobError: it ended before a model was evaluated.
    """
    run = watched(
        ["-m", "orchestration", "run", "--source", str(source)],
        log=home / "run.log",
        environment={"RECOMMENDER_HOME": str(home), "RECOMMENDER_RECIPE": str(recipe), **environment},
    )
    at = Home(root=home)
    if not at.report.exists():
        raise JobError(f"exit code {run.code} after {run.seconds:.0f} s: {run.last_lines()}")
    report = read_json(at.report)
    evaluation = read_json(at.evaluations / f"{report['bundle']}.json")
    return {
        "exit_code": run.code,
        "seconds": run.seconds,
        "step_seconds": {name: float(seconds) for name, seconds in _STEP.findall(run.output)},
        "peak_mib": run.peak_mib,
        "gate": {
            "approved": report["gate"]["approved"],
            "refusals": [
                f"{rule['rule']}: {rule['reason']}" for rule in report["gate"]["rules"] if not rule["passed"]
            ],
        },
        "quarantined": {name: table["quarantined"] for name, table in report["tables"].items()},
        "bundle": str(at.bundles / evaluation["bundle"]),
        "examples": str(current_folder(at.examples / report["source"])),
        "evaluation": of_interest(evaluation),
    }


def another_fit(examples: Path, out: Path, recipe: Path) -> Facts:
    """`python -m training fit` and `evaluate`, from scratch, on examples that a whole job left.

    Raises:
        JobError: one of them failed.
    """

    def training(command: str, *options: str) -> Watched:
        run = watched(
            ["-m", "training", command, "--quiet", "--examples", str(examples), *options],
            log=out / f"{command}.log",
            environment={},
        )
        if run.code:
            raise JobError(f"training {command}: exit code {run.code}: {run.last_lines()}")
        return run

    fit = training("fit", "--out", str(out), "--recipe", str(recipe))
    bundle = json.loads(
        fit.output[fit.output.index("\n{\n") if "\n{\n" in fit.output else fit.output.index("{") :]
    )["bundle"]
    evaluation = out / "evaluation.json"
    measured = training("evaluate", "--bundle", bundle, "--out", str(evaluation))
    return {
        "seconds": round(fit.seconds + measured.seconds, 1),
        "peak_mib": max(fit.peak_mib, measured.peak_mib),
        "bundle": bundle,
        "evaluation": of_interest(read_json(evaluation)),
    }


def of_interest(evaluation: Mapping[str, Any]) -> Facts:
    """What the page says of an evaluation: metrics of all scorers, the ladder, what is proposed."""
    names = ("model", "zero_shot", "lightgbm", "logistic_regression", "popularity", "constant")
    return {
        "metrics": {name: evaluation[name] for name in names if evaluation.get(name) is not None},
        "ladder": evaluation.get("ladder") or [],
        "proposal": evaluation.get("proposal"),
        "proposal_reason": evaluation.get("proposal_reason"),
    }


def write_recipe(path: Path, settings: Mapping[str, Any]) -> Path:
    """A recipe that changes some settings of the packaged one, named by dots."""
    write_text(path, "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return path
