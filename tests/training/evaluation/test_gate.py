"""Evaluation, gate, plots and the command line on a small fitted bundle."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expectations.contracts.gate_decision import read_gate_decision, require_approval
from expectations.errors import RejectedError, SettingError
from tests.training.synthetic import make_rows, write_examples
from training.cli import main
from training.data.dataset import read_examples
from training.evaluation import baselines, plots
from training.evaluation.evaluate import _champion, evaluate
from training.evaluation.gate import gate_decision, read_rules
from training.pipeline.fit import FitResult

METRICS = ("auc", "average_precision", "log_loss", "calibration_error", "ndcg_at_10", "hit_rate_at_10")


@pytest.fixture(name="evaluation", scope="module")
def _evaluation(fitted: FitResult, examples: Path) -> dict[str, Any]:
    return evaluate(fitted.bundle, examples, champion=fitted.bundle, seed=1, progress=False)


def test_it_is_json_and_names_its_bundle(evaluation: dict[str, Any], fitted: FitResult) -> None:
    assert json.loads(json.dumps(evaluation)) == evaluation
    assert evaluation["bundle"] == fitted.hash
    assert set(evaluation["slices"]) >= {"cold-start users", "heavy users", "context_channel=web"}


def test_the_model_is_better_than_popularity_and_its_intervals_hold_its_metrics(
    evaluation: dict[str, Any],
) -> None:
    assert evaluation["model"]["auc"] > evaluation["popularity"]["auc"] + 0.1
    for name in METRICS:
        low, high = evaluation["intervals"][name]
        # The calibration error of a resample is above that of all rows: it adds the noise of the draw.
        assert low - 1e-9 <= evaluation["model"][name] <= high * 2


def test_a_champion_that_is_the_model_itself_differs_by_nothing(evaluation: dict[str, Any]) -> None:
    for name in METRICS:
        pair = evaluation["paired"]["champion"][name]
        assert pair == {"difference": 0.0, "interval": [0.0, 0.0]}


def test_a_champion_that_misses_a_feature_is_said_so(
    fitted: FitResult, tmp_path: Path, examples: Path
) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12).drop(columns="context_hour")
    numeric = ("user_events", "item_popularity", "cross_visits")
    folder = write_examples(tmp_path / "examples", rows=rows, numeric=numeric)
    found, problem = _champion(fitted.bundle, read_examples(folder))
    assert found is None and problem is not None and "context_hour" in problem
    assert _champion(None, read_examples(examples)) == (None, None)


def test_without_lightgbm_it_is_not_compared_with(
    fitted: FitResult, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "train_boosting", lambda *_, **__: None)
    found = evaluate(fitted.bundle, examples, progress=False)
    assert found["lightgbm"] is None and found["paired"]["lightgbm"] is None
    assert found["champion"] is None


def test_a_test_part_with_one_class_has_undefined_metrics_and_no_approval(
    fitted: FitResult, tmp_path: Path
) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rows.loc[rows["event_timestamp"] >= "2020-01-09", "label"] = 0
    found = evaluate(fitted.bundle, write_examples(tmp_path / "examples", rows=rows), progress=False)
    assert found["model"]["auc"] is None and found["model"]["ndcg_at_10"] is None
    decision = gate_decision(found, read_rules(None), fitted.hash)
    assert not decision.approved


def test_the_gate_approves_and_writes_a_decision(
    evaluation: dict[str, Any], fitted: FitResult, tmp_path: Path
) -> None:
    (tmp_path / "e.json").write_text(json.dumps(evaluation), encoding="utf-8")
    (tmp_path / "r.toml").write_text("max_relative_calibration_error = 0.9\n", encoding="utf-8")
    arguments = ["gate", "--bundle", str(fitted.bundle), "--evaluation", str(tmp_path / "e.json")]
    arguments += ["--rules", str(tmp_path / "r.toml"), "--gate-decisions", str(tmp_path / "v")]
    assert main(arguments) == 0
    assert require_approval(tmp_path / "v", fitted.hash).approved
    assert {rule.rule for rule in read_gate_decision(tmp_path / "v", fitted.hash).rules} >= {
        "champion",
        "popularity",
        "calibration_error",
    }


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("champion", {"champion_margin": -1.0}),
        ("popularity", {"popularity_margin": 0.9}),
        ("calibration_error", {"max_relative_calibration_error": 0.0}),
        ("slice heavy users", {"min_slice_auc": 1.0, "min_slice_positives": 1}),
    ],
)
def test_each_rule_can_reject(
    rule: str, change: dict[str, Any], evaluation: dict[str, Any], fitted: FitResult
) -> None:
    decision = gate_decision(evaluation, replace(read_rules(None), **change), fitted.hash)
    assert not decision.approved
    assert rule in {result.rule for result in decision.rules if not result.passed}


def test_no_champion_passes_with_that_reason(evaluation: dict[str, Any], fitted: FitResult) -> None:
    decision = gate_decision({**evaluation, "champion": None}, read_rules(None), fitted.hash)
    assert next(rule for rule in decision.rules if rule.rule == "champion").reason == "no champion"


def test_an_evaluation_of_another_bundle_is_refused(evaluation: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="evaluate this bundle"):
        gate_decision(evaluation, read_rules(None), "0" * 64)


@pytest.mark.parametrize("line", ["unknown = 1", "min_slice_auc = true", 'champion_metric = "f1"', "x ="])
def test_bad_rules_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(line, encoding="utf-8")
    with pytest.raises(SettingError):
        read_rules(tmp_path / "gate.toml")


def test_plots_are_pictures(evaluation: dict[str, Any], fitted: FitResult) -> None:
    pictures = [plots.loss_curves(fitted.history, "auc"), plots.roc(evaluation)]
    pictures += [plots.calibration(evaluation), plots.lift(evaluation)]
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5000 for picture in pictures)


def test_plots_say_what_is_missing(fitted: FitResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SettingError, match="pip install matplotlib"):
        plots.loss_curves(fitted.history, "auc")


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--examples", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "schema.json does not exist" in capsys.readouterr().err
    assert main(["evaluate", "--bundle", str(tmp_path), "--examples", "x", "--out", "y"]) == 1


@pytest.mark.slow
def test_fit_runs_alone_from_the_command_line(examples: Path, encoder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'[encoder]\nname = "{encoder}"\ntrainable_layers = 1\n'
        "[finetuning]\nepochs = 1\n[tabular_model]\nepochs = 1\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "training", "fit", "--recipe", str(recipe), "--quiet"]
    command += ["--examples", str(examples), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["bundle"]).is_dir()
