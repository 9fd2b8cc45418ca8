"""Training on a machine that has only the packages that the README names for it."""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

from tests.benchmarks.harness import ROOT
from tests.training.scripts import run_script
from tests.training.synthetic import write_encoder, write_examples

NEEDED = ("torch", "transformers", "peft", "pandas", "pyarrow", "scikit-learn")
OURS = {"campaign-recommender"}
BLOCKED = """
import json, runpy, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # an import of None is an ImportError
sys.argv = ["training", *sys.argv[2:]]
runpy.run_module("training", run_name="__main__")
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_what_they_need(names: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = normal(wanted.pop())
        if name in found:
            continue
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # of another platform
            continue
        found.add(name)
        wanted += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_the_readme_names_these_packages() -> None:
    *first, last = NEEDED
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"only {', '.join(first)} and {last}" in text


@pytest.mark.slow
def test_fit_evaluate_gate_and_predict_run_alone(tmp_path) -> None:
    allowed = with_what_they_need(NEEDED)
    blocked = [
        module
        for module, names in packages_distributions().items()
        if not (allowed | OURS) & {normal(name) for name in names} and module not in sys.stdlib_module_names
    ]
    assert {"lightgbm", "tensorboard", "duckdb", "feast", "dagster", "optuna"} <= set(blocked)
    examples = write_examples(tmp_path / "examples", num_users=60, num_days=12)
    write_encoder(tmp_path / "encoder")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[encoder]\nname = "{tmp_path / "encoder"}"\n[finetuning]\nepochs = 1\n')

    def training(*arguments: object) -> str:
        done = run_script(BLOCKED, json.dumps(blocked), *arguments)
        assert done.returncode in (0, 3), done.stderr[-3000:]
        return done.stdout

    fitted = training("fit", "--quiet", "--examples", examples, "--out", tmp_path, "--recipe", recipe)
    bundle = json.loads(fitted[fitted.index("{") :])["bundle"]
    (left_out,) = json.loads((tmp_path / bundle / "manifest.json").read_text())["left_out"]
    assert "LightGBM" in left_out
    measured = tmp_path / "evaluation.json"
    training("evaluate", "--quiet", "--examples", examples, "--bundle", bundle, "--out", measured)
    evaluation = json.loads(measured.read_text())
    assert evaluation["lightgbm"] is None and len(evaluation["left_out"]) == 2
    training("gate", "--bundle", bundle, "--evaluation", measured, "--gate-decisions", tmp_path / "decisions")
    training("predict", "--bundle", bundle, "--input", examples, "--out", tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").exists()
