"""What a new model is held against: the best model approved so far, and a champion that was lost."""

from pathlib import Path

import pytest

from expectations.storage.atomic import write_json
from orchestration.home import Home
from orchestration.pipeline import model
from orchestration.pipeline.workspace import Workspace

SOURCE = """
name = "shop"
[tables.items]
location = "items.parquet"
[tables.exposures]
location = "exposures.parquet"
"""


@pytest.fixture(name="workspace")
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Bundle a was the best; b, a little behind it, serves. Bundles are whole where their folder is there."""
    (tmp_path / "source.toml").write_text(SOURCE)
    workspace = Workspace(home=Home(root=tmp_path / "home"), source_path=tmp_path / "source.toml")
    monkeypatch.setattr(model, "_is_whole", Path.is_dir)
    (workspace.home.bundles / "a").mkdir(parents=True)
    paired = {"champion": {"ndcg_at_10": {"difference": -0.015, "interval": [-0.03, 0.01]}}}
    write_json(workspace.home.evaluations / "b.json", {"paired": paired, "champion_bundle": "a"})
    write_json(workspace.home.deployment, {"bundle": "b", "project": "shop"})
    return workspace


def test_a_champion_behind_the_one_before_does_not_lower_the_bar(workspace: Workspace) -> None:
    bundles = workspace.home.bundles
    best = model._best_approved(workspace, bundles / "b")
    assert best == {"best_approved": bundles / "a", "champion_shortfall": {"ndcg_at_10": -0.015}}
    (bundles / "a").rmdir()
    best = model._best_approved(workspace, bundles / "b")
    assert best == {"best_approved": None, "champion_shortfall": {"ndcg_at_10": -0.015}}
    assert model._best_approved(workspace, None) == model._best_approved(workspace, bundles / "c") == {}


def test_a_champion_whose_bundle_was_removed_is_not_forgotten(workspace: Workspace) -> None:
    problem = model._lost_champion(workspace, "c")
    assert problem is not None and "its bundle b" in problem and "removed" in problem
    assert model._lost_champion(workspace, "b") is None
    write_json(workspace.home.deployment, {"bundle": "b", "project": "another shop"})
    assert model._lost_champion(workspace, "c") is None
    workspace.home.deployment.unlink()
    assert model._lost_champion(workspace, "c") is None
