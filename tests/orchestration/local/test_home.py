"""The home's layout, the instance file, the environment of programs, and the report's text."""

import json
from pathlib import Path

import pytest

from expectations.errors import SettingError
from orchestration.home import Home
from orchestration.local.cli import parser
from orchestration.local.instance import COMPLETE_JOURNEY, child_environment, source_file, write_instance
from orchestration.local.postgres import DATABASES, read_address
from orchestration.local.report_text import recommendation_text, refusal_text, report_table


def test_home_is_absolute_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Home.from_environment({}).root == tmp_path / ".recommender"
    home = Home.from_environment({"RECOMMENDER_HOME": "elsewhere"})
    assert home.deployment == tmp_path / "elsewhere" / "deployment" / "current.json"
    assert home.report == tmp_path / "elsewhere" / "reports" / "latest.json"
    assert list(tmp_path.iterdir()) == []


def test_the_packaged_source_is_the_default():
    assert source_file(None) == COMPLETE_JOURNEY
    assert COMPLETE_JOURNEY.is_absolute()


def test_a_source_may_be_named_by_its_folder_and_must_exist(tmp_path):
    (tmp_path / "source.toml").write_text("")
    assert source_file(str(tmp_path)) == tmp_path / "source.toml"
    with pytest.raises(SettingError, match=r"no source file .*nowhere\.toml"):
        source_file(str(tmp_path / "nowhere.toml"))


def test_no_password_is_written_and_the_environment_carries_it(tmp_path):
    home = Home(root=tmp_path)
    server = read_address("postgresql://me:hush@db:5432/main")
    databases = {name: server.set(database=name) for name in DATABASES}
    environ = {"HF_HUB_OFFLINE": "0", "BENTOML_DO_NOT_TRACK": "1", "PATH": "/bin", "OMP_NUM_THREADS": "3"}
    environment = child_environment(home, databases, Path("/shop/source.toml"), environ)
    assert "hush" not in write_instance(home, {}).read_text()
    assert environment["RECOMMENDER_DAGSTER_URL"] == "postgresql+psycopg2://me:hush@db:5432/dagster"
    assert environment["RECOMMENDER_LEDGER_URL"] == "postgresql+psycopg2://me:hush@db:5432/ledger"
    assert environment["RECOMMENDER_SOURCE"] == "/shop/source.toml"
    assert environment["DAGSTER_HOME"] == str(tmp_path / "dagster")
    assert environment["BENTOML_DO_NOT_TRACK"] == "true"  # the user's `1` would not keep it quiet
    assert environment["HF_HUB_OFFLINE"] == "0"  # the user's own choice
    assert environment["PATH"] == "/bin"
    assert "OMP_NUM_THREADS" not in child_environment(home, databases, Path("/s"), {})


def test_a_run_may_take_as_long_as_is_set(tmp_path):
    def limit(environ):
        written = json.loads(write_instance(Home(root=tmp_path), environ).read_text())
        return written["run_monitoring"]["max_runtime_seconds"]

    assert limit({}) == 24 * 3600
    assert limit({"RECOMMENDER_MAX_RUN_HOURS": "0.5"}) == 1800
    for wrong in ("long", "0", "-1", "inf", "nan"):
        with pytest.raises(SettingError, match=f"RECOMMENDER_MAX_RUN_HOURS is '{wrong}'; give a number"):
            limit({"RECOMMENDER_MAX_RUN_HOURS": wrong})


def test_ports_are_checked(capsys):
    options = parser().parse_args(["up", "--port-ui", "4000"])
    assert (options.source, options.port_ui, options.port_api) == (None, 4000, None)
    with pytest.raises(SystemExit):
        parser().parse_args(["up", "--port-ui", "0"])
    assert "'0' is no port" in capsys.readouterr().err


REPORT = json.loads("""{
    "bundle": "4f0c9a1b2c3d4e5f",
    "zero_shot": {"auc": 0.51234, "ndcg_at_10": null, "num_exposures": 266353, "num_positive": 873},
    "model": {"auc": 0.91, "ndcg_at_10": 0.5, "num_exposures": 266353, "num_positive": 873},
    "lightgbm": {"auc": 0.83149, "ndcg_at_10": 0.4, "num_exposures": 266353, "num_positive": 873},
    "gate": {"approved": false, "rules": [
        {"rule": "auc above baseline", "value": 0.91, "bound": 0.8315, "passed": true},
        {"rule": "calibration error", "value": null, "bound": 0.01, "passed": false}]},
    "seconds": {"landed": 12.34, "model": 1200.0},
    "ladder": [
        {"step": "zero_shot", "metrics": {"auc": 0.51, "log_loss": 0.3}, "interval": [0.5, 0.52], "gain": null},
        {"step": "tabular", "metrics": {"auc": 0.9, "log_loss": 0.1}, "interval": [0.88, 0.92],
         "gain": {"metric": "auc", "difference": 0.39, "interval": [0.37, 0.41]}},
        {"step": "finetuned", "metrics": {"auc": 0.91, "log_loss": 0.1}, "interval": [0.89, 0.93],
         "gain": {"metric": "auc", "difference": 0.01, "interval": [-0.01, 0.03]}}],
    "proposal": "tabular", "proposal_reason": "g alone: the fine-tuned model gains nothing over it",
    "refit": {"bundle": "aaaabbbbccccdddd", "approved": false, "rules": [
        {"rule": "refit is calibrated", "passed": false, "reason": "it expects 9 positives, 2 happened"}]},
    "tables": {"events": {"rows": 1469307, "quarantined": 0}},
    "checks": {"passed": 41, "warned": 2, "failed": 0}
}""")


def test_the_table_says_every_figure_under_its_name():
    lines = [" ".join(line.split()) for line in report_table(REPORT).splitlines()]
    assert "events 1,469,307 0" in lines
    assert "data checks: 41 passed, 2 warned, 0 failed" in lines
    assert "AUC 0.5123 0.9100 0.8315" in lines
    assert "NDCG@10 - 0.5000 0.4000" in lines
    assert "the gate REJECTED this model" in lines
    assert "auc above baseline 0.9100 0.8315 passed" in lines
    assert "calibration error - 0.0100 FAILED" in lines
    assert "together 1,212.3" in lines
    assert "g alone 0.9000 - 0.1000 gains: +0.3900 (+0.3700 to +0.4100)" in lines
    assert "+ fine-tuning 0.9100 - 0.1000 gains nothing: +0.0100 (-0.0100 to +0.0300)" in lines
    assert "proposed: g alone: the fine-tuned model gains nothing over it" in lines
    assert any("aaaabbbbcccc FAILED its sanity gate: refit is calibrated" in line for line in lines)
    assert "model 4f0c9a1b2c3d" in lines


def test_a_refusal_names_the_model_the_rules_and_what_to_do():
    told = refusal_text(REPORT)
    assert "refused model 4f0c9a1b2c3d" in told and "calibration error: not passed" in told
    assert "auc above baseline" not in told and "RECOMMENDER_GATE" in told
    approved = {**REPORT, "gate": {"approved": True, "rules": []}}
    assert "refused model aaaabbbbcccc" in refusal_text(approved)
    assert "it expects 9 positives, 2 happened" in refusal_text(approved)
    left = {**REPORT, "gate": {**REPORT["gate"], "needs_person": "look at the champion"}}
    assert refusal_text(left).endswith("look at the champion")


def test_a_report_with_little_in_it_is_still_shown():
    assert report_table({}) == ""
    assert report_table({"gate": {"approved": True}}) == "the gate APPROVED this model"


def test_a_recommendation_shows_text_probability_and_reasons():
    item = {
        "item_id": "c8",
        "text": "Coupon\n for coffee " + "x" * 200,
        "probability": 0.0312,
        "text_logit": 0.5,
        "tabular_logit": -3.9,
        "reasons": ["bought coffee 12 times", "redeemed before"],
    }
    reply = {"user_id": "1178", "items": [item] * 5, "cold_start": False}
    text = recommendation_text(reply)
    assert text.splitlines()[0] == "household 1178"
    assert "  1. Coupon for coffee xxx" in text
    assert "…" in text
    assert "probability 3.12%  (text +0.50, tabular -3.90)" in text
    assert text.count("because bought coffee 12 times") == 3
    assert "nothing to show" in recommendation_text({"user_id": "1", "items": [], "cold_start": True})
