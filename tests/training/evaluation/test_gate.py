"""Evaluation, gate, plots and the command line on a small fitted bundle."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expectations.contracts.gate_decision import (
    GateDecision,
    RuleResult,
    read_gate_decision,
    require_approval,
    write_gate_decision,
)
from expectations.errors import BundleError, RejectedError, SettingError
from tests.training.fits import run
from tests.training.synthetic import make_rows, write_examples
from training.cli import main
from training.config.recipe import Recipe, recipe_from
from training.data.collate import Collator
from training.data.dataset import read_examples
from training.data.split import TEST
from training.evaluation import baselines, ladder, plots
from training.evaluation.evaluate import _other_bundle, evaluate
from training.evaluation.gate import GateRules, best_before, gate_decision, read_rules
from training.evaluation.ladder import Measured, proposal, step_probabilities
from training.evaluation.metrics import LOWER_IS_BETTER
from training.inference.batch_scoring import score_rows
from training.inference.predictor import Predictor
from training.pipeline.fit import FitResult

METRICS = ("auc", "average_precision", "log_loss", "calibration_error", "ndcg_at_10")


def rule_of(decision: GateDecision, name: str) -> RuleResult:
    return next(rule for rule in decision.rules if rule.rule == name)


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
        assert [pair["difference"], *pair["interval"]] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


def test_a_champion_that_misses_a_feature_is_said_so(fitted: FitResult, tmp_path: Path) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12).drop(columns="context_hour")
    numeric = ("user_events", "item_popularity", "cross_visits")
    folder = write_examples(tmp_path / "examples", rows=rows, numeric=numeric)
    data = read_examples(folder)
    test = np.flatnonzero(data.part == TEST)
    found, problem = _other_bundle(fitted.bundle, data, test, "champion")
    assert found is None and problem is not None and "context_hour" in problem
    assert _other_bundle(None, data, test, "champion") == (None, None)


def test_a_bundle_is_not_measured_on_rows_that_it_has_learned_from(fitted: FitResult, tmp_path: Path) -> None:
    earlier = write_examples(tmp_path / "examples", test_from=datetime(2020, 1, 8))
    with pytest.raises(BundleError, match=r"learned from rows until 2020-01-09.*192 of the 960"):
        evaluate(fitted.bundle, earlier, progress=False)


def test_without_lightgbm_it_is_not_compared_with(
    fitted: FitResult, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "import_lightgbm", lambda: None)
    found = evaluate(fitted.bundle, examples, progress=False)
    assert found["lightgbm"] is None and found["paired"]["lightgbm"] is None
    assert found["champion"] is None
    decision = gate_decision(found, read_rules(None), fitted.hash)
    assert rule_of(decision, "lightgbm").reason == "LightGBM is not installed"


def test_a_test_part_with_one_class_has_undefined_metrics_and_no_approval(
    fitted: FitResult, tmp_path: Path
) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rows.loc[rows["event_timestamp"] >= "2020-01-09", "label"] = 0
    found = evaluate(fitted.bundle, write_examples(tmp_path / "examples", rows=rows), progress=False)
    assert found["model"]["auc"] is None and found["model"]["ndcg_at_10"] is None
    decision = gate_decision(found, read_rules(None), fitted.hash)
    assert not decision.approved


def test_anonymous_aggregates_that_were_shown_alone_are_measured_without_ranking_metrics(
    fitted: FitResult, tmp_path: Path
) -> None:
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rng = np.random.default_rng(1)
    rows["user_id"], rows["query_group_id"] = "", np.arange(len(rows))
    rows["weight"] = rng.integers(1, 200, len(rows)).astype(np.float32)
    rows["label"] = rng.binomial(rows["weight"].astype(int), 0.1 + 0.3 * rows["label"]) / rows["weight"]
    found = evaluate(fitted.bundle, write_examples(tmp_path / "examples", rows=rows), progress=False)
    test = rows[rows["event_timestamp"] >= "2020-01-09"]
    assert found["model"]["num_exposures"] == test["weight"].sum()
    assert found["model"]["num_positive"] == round((test["weight"] * test["label"]).sum())
    assert found["model"]["ndcg_at_10"] is None and found["model"]["auc"] > 0.6
    low, high = found["intervals"]["auc"]
    assert 0 < high - low < 0.1
    decision = gate_decision(found, lenient(), fitted.hash)
    assert "skipped" in rule_of(decision, "ndcg_at_10").reason and rule_of(decision, "ndcg_at_10").passed
    plots.lift(found), plots.calibration(found), plots.roc(found)


@pytest.mark.parametrize(
    ("change", "rules", "status", "said"),
    [
        ({}, "min_slice_positives = 100000", 0, "approved: "),
        ({}, "margin = -0.9", 3, "rejected: "),
        (
            {"champion_problem": "the champion cannot score these rows: x"},
            "",
            4,
            "left to a person: the champion",
        ),
    ],
)
def test_the_gate_ends_with_its_decision_and_writes_it(
    change: dict[str, Any],
    rules: str,
    status: int,
    said: str,
    evaluation: dict[str, Any],
    fitted: FitResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "e.json").write_text(json.dumps(evaluation | change), encoding="utf-8")
    (tmp_path / "r.toml").write_text(rules, encoding="utf-8")
    arguments = ["gate", "--bundle", str(fitted.bundle), "--evaluation", str(tmp_path / "e.json")]
    arguments += ["--rules", str(tmp_path / "r.toml"), "--gate-decisions", str(tmp_path / "v")]
    assert main(arguments) == status
    assert said in capsys.readouterr().out
    decision = read_gate_decision(tmp_path / "v", fitted.hash)
    assert decision.approved == (status == 0) and (decision.needs_person is None) == (status != 4)
    names = {rule.rule for rule in decision.rules}
    assert names >= {"champion", "popularity", "constant", "lightgbm", "logistic_regression"}


def behind(by: float, within: float = 0.001) -> dict[str, dict[str, Any]]:
    pair = {"difference": -by, "interval": [-by - within, -by + within]}
    return {"auc": pair, "ndcg_at_10": pair}


@pytest.mark.parametrize("rival", ["popularity", "logistic_regression", "lightgbm", "zero_shot", "champion"])
def test_a_model_behind_a_rival_of_its_run_is_refused(
    rival: str, evaluation: dict[str, Any], fitted: FitResult
) -> None:
    for within, approved in ((0.001, False), (0.006, True)):
        paired = evaluation["paired"] | {rival: behind(0.005, within)}
        decision = gate_decision({**evaluation, "paired": paired}, lenient(), fitted.hash)
        assert rule_of(decision, rival).passed == decision.approved == approved


def lenient() -> GateRules:
    """The packaged rules without those on slices, which few rows leave to chance."""
    return replace(read_rules(None), min_slice_positives=10**6)


def test_a_log_loss_worse_than_a_constants_is_refused(evaluation: dict[str, Any], fitted: FitResult) -> None:
    worse = evaluation["constant"] | {"log_loss": evaluation["model"]["log_loss"] - 1e-6}
    decision = gate_decision({**evaluation, "constant": worse}, lenient(), fitted.hash)
    assert not decision.approved and not rule_of(decision, "constant").passed


@pytest.mark.parametrize(("between", "passed"), [([-0.2, -0.01], False), ([-0.2, 0.01], True), (None, True)])
def test_a_slice_is_held_against_the_best_baseline_there(
    between: list[float] | None, passed: bool, evaluation: dict[str, Any], fitted: FitResult
) -> None:
    gain = {"difference": -0.1 if between else 0.1, "interval": between}
    slices = {"heavy users": evaluation["slices"]["heavy users"] | {"gain": gain}}
    rules = replace(read_rules(None), min_slice_positives=1)
    decision = gate_decision({**evaluation, "slices": slices}, rules, fitted.hash)
    assert rule_of(decision, "slice heavy users").passed == passed


def test_ranking_metrics_that_are_absent_are_skipped_and_said(
    evaluation: dict[str, Any], fitted: FitResult
) -> None:
    model = evaluation["model"] | {"ndcg_at_10": None}
    paired = {name: pairs and pairs | {"ndcg_at_10": None} for name, pairs in evaluation["paired"].items()}
    decision = gate_decision({**evaluation, "model": model, "paired": paired}, lenient(), fitted.hash)
    assert decision.approved
    assert "not measured" in rule_of(decision, "ndcg_at_10").reason
    assert rule_of(decision, "best_approved").reason.startswith("auc")


def test_a_champion_that_cannot_be_scored_is_left_to_a_person(
    evaluation: dict[str, Any], fitted: FitResult, tmp_path: Path
) -> None:
    problem = "the champion cannot score these rows: feature column x is missing"
    paired = evaluation["paired"] | {"champion": None}
    found = {**evaluation, "champion": None, "champion_problem": problem, "paired": paired}
    decision = gate_decision(found, lenient(), fitted.hash)
    assert not decision.approved and 'unscorable_champion = "replace"' in str(decision.needs_person)
    write_gate_decision(tmp_path, decision)
    with pytest.raises(RejectedError, match="to a person: the champion cannot score"):
        require_approval(tmp_path, fitted.hash)
    replaced = gate_decision(found, replace(lenient(), unscorable_champion="replace"), fitted.hash)
    assert replaced.approved and replaced.needs_person is None


def test_the_margin_is_held_against_the_best_approved_so_far(
    evaluation: dict[str, Any], fitted: FitResult
) -> None:
    paired = evaluation["paired"] | {"champion": behind(0.015, 0.03)}
    a_step_down = {**evaluation, "paired": paired}
    assert gate_decision(a_step_down, lenient(), fitted.hash).approved
    scored = {**a_step_down, "paired": paired | {"best_approved": behind(0.03, 0.05)}}
    recorded = {**a_step_down, "champion_shortfall": {"ndcg_at_10": -0.015, "auc": 0.0}}
    for found in (scored, recorded):
        rule = rule_of(gate_decision(found, lenient(), fitted.hash), "best_approved")
        assert not rule.passed and rule.value == pytest.approx(-0.03)


def test_no_champion_passes_with_that_reason(evaluation: dict[str, Any], fitted: FitResult) -> None:
    paired = evaluation["paired"] | {"champion": None}
    found = {**evaluation, "champion": None, "paired": paired}
    assert rule_of(gate_decision(found, lenient(), fitted.hash), "champion").reason == "no champion"


def test_an_evaluation_of_another_bundle_is_refused(evaluation: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="evaluate this bundle"):
        gate_decision(evaluation, read_rules(None), "0" * 64)


@pytest.mark.parametrize("line", ["unknown = 1", "slice_margin = true", 'metric = "f1"', "x ="])
def test_bad_rules_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(line, encoding="utf-8")
    with pytest.raises(SettingError):
        read_rules(tmp_path / "gate.toml")


def test_the_ladder_has_its_steps_on_the_same_rows(evaluation: dict[str, Any]) -> None:
    steps = evaluation["ladder"]
    assert [step["step"] for step in steps] == ["zero_shot", "tabular", "frozen", "finetuned"]
    assert len({step["metrics"]["num_exposures"] for step in steps}) == 1
    assert steps[-1]["metrics"] == evaluation["model"] and steps[0]["metrics"] == evaluation["zero_shot"]
    for before, step in pairwise(steps):
        gain = step["gain"]
        sign = -1 if gain["metric"] in LOWER_IS_BETTER else 1
        between = step["metrics"][gain["metric"]] - before["metrics"][gain["metric"]]
        assert gain["difference"] == pytest.approx(sign * between)
        assert gain["interval"][0] <= gain["difference"] <= gain["interval"][1]
    assert steps[0]["gain"] is None
    assert evaluation["proposal"] in ("tabular", "frozen", "finetuned") and evaluation["proposal_reason"]


@pytest.mark.parametrize(
    ("ahead", "proposed"),
    [
        ({}, "tabular"),
        ({"frozen"}, "frozen"),
        ({"finetuned"}, "finetuned"),
        ({"frozen", "finetuned"}, "frozen"),
    ],
)
def test_a_part_that_gains_nothing_is_not_proposed(ahead: set[str], proposed: str) -> None:
    draws = np.random.default_rng(0).normal(size=200) * 1e-3
    steps = {
        name: Measured(
            metrics={"auc": 0.6 + 0.1 * (name in ahead)}, draws={"auc": 0.6 + 0.1 * (name in ahead) + draws}
        )
        for name in ("zero_shot", "tabular", "frozen", "finetuned")
    }
    name, reason = proposal(steps, "auc")
    assert name == proposed
    assert ("gains nothing" in reason) == (proposed != "finetuned")


def test_the_steps_are_the_model_and_those_before_fine_tuning(fitted: FitResult, examples: Path) -> None:
    data, predictor = read_examples(examples), Predictor.load(fitted.bundle)
    rows = np.flatnonzero(data.part == TEST)
    served, trees = predictor.score_examples(data), predictor.model.trees
    collator = Collator(data, predictor.transforms, lexical=predictor.model.text_model.lexical.logits)
    recipe = recipe_from(dict(predictor.manifest.recipe), where="")
    vectors = baselines.pretrained_vectors(recipe, data.texts, fitted.bundle)
    tuned = predictor.texts.get(data.texts, cached=False)
    found = step_probabilities(predictor, fitted.bundle, collator, tuned, vectors, rows)
    assert np.allclose(found["finetuned"], served.probability, atol=1e-5)
    predictor.model.trees = trees
    before = score_rows(predictor.model, collator, vectors, rows)  # of the weights that it left
    assert np.allclose(found["frozen"], before.probability, atol=1e-5)
    *scales, intercept = predictor.manifest.metrics["scales"]["tabular"]
    predictor.model.set_scales(scales, intercept)
    alone = score_rows(predictor.model, collator, vectors, rows, tabular_only=True)
    assert np.allclose(found["tabular"], alone.probability, atol=1e-5)
    assert not np.allclose(found["frozen"], found["tabular"], atol=1e-3)


def test_what_fine_tuning_left_as_it_was_is_scored_once(
    examples: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untuned = run(examples, recipe.updated(finetuning={"epochs": 0}), tmp_path)
    data, predictor = read_examples(examples), Predictor.load(untuned.bundle)
    calls, real = [], ladder.logit_parts
    monkeypatch.setattr(ladder, "logit_parts", lambda *given: calls.append(given) or real(*given))
    rows, collator = np.flatnonzero(data.part == TEST), Collator(data, predictor.transforms)
    vectors = predictor.texts.get(data.texts, cached=False)
    found = step_probabilities(predictor, untuned.bundle, collator, vectors, vectors, rows)
    assert len(calls) == 1
    predictor = Predictor.load(untuned.bundle)
    again = step_probabilities(predictor, untuned.bundle, collator, vectors, vectors + 1e-7, rows)
    assert len(calls) == 3
    assert all(np.allclose(found[step], again[step], atol=1e-4) for step in again)


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


def test_the_best_approved_is_remembered_through_a_champion_behind_it() -> None:
    ahead = {"paired": {"champion": {"ndcg_at_10": {"difference": 0.01}}}, "champion_bundle": "a"}
    assert best_before(ahead, read_rules(None)) == (None, None)
    behind_a = {"paired": {"champion": {"ndcg_at_10": {"difference": -0.01}}}, "champion_bundle": "a"}
    assert best_before(behind_a, read_rules(None)) == ("a", {"ndcg_at_10": -0.01})
    both = {**behind_a, "champion_bundle": "b", "best_approved_bundle": "a"}
    both["paired"] = behind_a["paired"] | {"best_approved": {"ndcg_at_10": {"difference": -0.015}}}
    assert best_before(both, read_rules(None)) == ("a", {"ndcg_at_10": -0.015})
    lost = {**behind_a, "champion_bundle": "b", "champion_shortfall": {"ndcg_at_10": -0.01}}
    name, shortfall = best_before(lost, read_rules(None))
    assert name is None and shortfall == pytest.approx({"ndcg_at_10": -0.02})


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
