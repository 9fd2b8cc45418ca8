"""The whole job on a shop's own tables: everything real but the size, of the data and of the language model."""

import re
import shutil

import dagster as dg
import pandas as pd
import pytest

from expectations.contracts.bundle import verify_bundle
from expectations.storage.atomic import read_json
from expectations.storage.masking import Mask
from orchestration.automation import data_job, rollback_job, run_outcome, unpin_job
from orchestration.definitions import ASSETS, searched_recipe
from orchestration.home import Home
from orchestration.local.report_text import MEASURES, refusal_text, report_table
from orchestration.pipeline.ladder import STEPS
from orchestration.pipeline.model import champion, decide, deploy, train
from orchestration.resources import WorkspaceResource
from serving.release.pointer import current_release
from tests.features import small_shop
from tests.orchestration.conftest import AWKWARD
from tests.training.synthetic import write_encoder

pytestmark = pytest.mark.slow

SOURCE = """
name = "small_shop"
clock = "data"
[tables.users]
location = "users.csv"
extra = { city = "categorical", age = "numeric", hobby = "text" }
[tables.items]
location = "items.parquet"
extra = { kind_of_offer = "categorical", discount = "numeric", terms = "text" }
[tables.events]
location = "events.csv"
columns = { event_timestamp = "when" }
[tables.exposures]
location = "exposures.parquet"
extra = { weather = "categorical", basket = "numeric", banner = "text" }
[tables.relations]
location = "relations.csv"
[split]
test_from = 2024-03-20
[features]
history_days = 60
"""
RECIPE = """
[encoder]
name = "{encoder}"
trainable_layers = 1
max_tokens = 24

[tabular_model]
ensemble_size = 2
hidden_size = 8
epochs = 1
negatives_per_positive = 1e9

[finetuning]
epochs = 1
texts_per_step = 4
negatives_per_positive = 1e9
"""
LENIENT = """
margin = 1.0
champion_margin = 1.0
slice_margin = 1.0
"""
STRICT = "margin = -0.99\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The folder of a shop with a source.toml, 3 unreadable events and 2 exposures of unknown items."""
    folder = tmp_path_factory.mktemp("shop [a]")
    tables = small_shop.frames(num_users=150, num_events=3000)
    events = tables["events"].rename(columns={"event_timestamp": "when"}).astype({"when": str})
    events.loc[:2, "when"] = "yesterday"
    events.to_csv(folder / "events.csv", index=False)
    lost = tables["exposures"].head(2).assign(item_id="c99", exposure_id=["lost 1", "lost 2"])
    pd.concat([tables["exposures"], lost]).to_parquet(folder / "exposures.parquet")
    tables["items"].to_parquet(folder / "items.parquet")
    tables["users"].to_csv(folder / "users.csv", index=False)
    tables["relations"].to_csv(folder / "relations.csv", index=False)
    (folder / "source.toml").write_text(SOURCE)
    encoder = write_encoder(folder / "encoder")
    (folder / "recipe.toml").write_text(RECIPE.format(encoder=encoder))
    (folder / "lenient.toml").write_text(LENIENT)
    (folder / "strict.toml").write_text(STRICT)
    return folder


@pytest.fixture(scope="module")
def workspace(shop, tmp_path_factory, bento_home):
    home = Home(root=tmp_path_factory.mktemp(AWKWARD))
    return WorkspaceResource(
        home=str(home.root),
        source=str(shop / "source.toml"),
        recipe=str(shop / "recipe.toml"),
        gate_rules=str(shop / "lenient.toml"),
    )


def _run(workspace, assets=ASSETS, **options):
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(assets, resources={"workspace": workspace}, instance=instance, **options)


@pytest.fixture(scope="module")
def first_run(workspace):
    return _run(workspace)


def _changed(workspace, **settings):
    names = ("home", "source", "recipe", "gate_rules")
    return WorkspaceResource(**{**{name: getattr(workspace, name) for name in names}, **settings})


def _report(workspace):
    return read_json(workspace.workspace().home.report)


def _serving(workspace):
    return read_json(workspace.workspace().home.deployment)["bundle"]


def _metadata(result, asset):
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_the_report_has_what_scripts_read(workspace, first_run):
    assert first_run.success
    report = _report(workspace)
    for scorer in ("zero_shot", "model", "lightgbm"):
        assert set(report[scorer]) >= set(MEASURES)
    assert report["model"]["num_exposures"] == report["lightgbm"]["num_exposures"] > 100
    assert report["gate"]["approved"] is True
    assert {"rule", "value", "bound", "passed"} <= set(report["gate"]["rules"][0])
    assert report["seconds"]["model_bundle"] > 0
    assert len(report["bundle"]) == 64


def test_no_row_is_lost(workspace, first_run):
    tables = _report(workspace)["tables"]
    assert tables["events"] == {"rows": 2997, "quarantined": 3}
    assert tables["exposures"]["quarantined"] == 2
    unread = pd.read_parquet(workspace.workspace().home.quarantine / "small_shop" / "events")
    assert len(unread) == 3
    assert unread["reason"].str.contains("yesterday").all()


def test_no_file_of_the_home_is_for_anybody_else(workspace, first_run):
    root = workspace.workspace().home.root
    paths = [root, *(path for path in root.rglob("*") if not path.is_symlink())]
    shared = [str(path.relative_to(root)) for path in paths if path.stat().st_mode & 0o077]
    assert len(paths) > 300
    assert shared == []


def test_no_metadata_names_a_shopper_or_shows_what_is_declared_of_one(workspace, first_run):
    assets = (
        "users",
        "checked_events",
        "exposures",
        "user_behaviour",
        "user_attributes",
        "training_examples",
    )
    shown = {asset: _metadata(first_run, asset)["preview"] for asset in assets}
    for asset, preview in shown.items():
        assert "user_id#" in preview and not re.search(r"\| u\d+ \|", preview), asset
    assert "Basel" not in shown["users"] and "age#" in shown["users"]
    assert "Basel" not in shown["user_attributes"] + shown["training_examples"]
    key = workspace.workspace().home.mask_key
    assert Mask(key=key.read_text().strip())("user_id", "u0") in shown["users"]


def test_the_approved_recipe_serves_fitted_to_all_rows_and_is_held_against_by_its_parent(
    workspace, first_run
):
    report, serving = _report(workspace), _serving(workspace)
    refit = report["refit"]
    assert refit["approved"] is True, refit
    assert serving == refit["bundle"] != report["bundle"]
    bundles = workspace.workspace().home.bundles
    assert verify_bundle(bundles / serving)[0].parent == report["bundle"]
    assert verify_bundle(bundles / report["bundle"])[0].parent is None
    assert champion(workspace.workspace()) == bundles / report["bundle"]


def test_the_report_says_what_each_part_of_the_model_adds(workspace, first_run):
    report = _report(workspace)
    assert [step["step"] for step in report["ladder"]] == list(STEPS)
    assert report["proposal"] in STEPS
    told = report_table(report)
    assert "+ frozen language model" in told and f"proposed: {report['proposal_reason']}" in told
    for asset in ("model_evaluation", "run_report"):
        assert "g alone" in _metadata(first_run, asset)["ladder"]


def test_a_second_run_computes_nothing_again(workspace, first_run):
    again = _run(workspace)
    assert again.success
    features = ("user_behaviour", "online_features", "training_examples")
    for asset in ("events", "checked_events", *features, "model_bundle", "final_model"):
        assert _metadata(again, asset)["unchanged"] is True, asset


def _alerts_of(result, instance):
    """What is told of a run that ended."""
    outcome = run_outcome(instance, instance.get_run_by_id(result.run_id), "http://127.0.0.1:3000")
    return [failure.alert.text() for failure in outcome.failures]


def test_a_rejected_bundle_is_a_finished_run_with_a_red_check_and_an_alert(workspace, shop, first_run):
    strict = _changed(workspace, gate_rules=str(shop / "strict.toml"))
    before = _serving(workspace)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(ASSETS, resources={"workspace": strict}, instance=instance)
        said = _alerts_of(result, instance)
    assert result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "approved"]
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert any("approved failed on gate_decision" in text and "popularity" in text for text in said)
    report = _report(workspace)
    assert report["gate"]["approved"] is False
    assert report["refit"] is None
    assert "the gate refused model" in refusal_text(report)
    note = _metadata(result, "deployed_model")["note"]
    assert note.startswith("nothing was deployed: the gate rejected bundle ")
    assert note.endswith(f"; model {before[:12]} goes on")
    assert _serving(workspace) == before
    with pytest.raises(
        dg.Failure, match=r"RejectedError.*popularity"
    ):  # the refit's own decision still stands
        rollback(workspace, to=before)
    pointer = workspace.workspace().home.deployment
    pointer.rename(pointer.with_name("kept.json"))
    alone = deploy(strict.workspace())
    assert alone.release is None and alone.held_back.endswith("; no model serves")
    pointer.with_name("kept.json").rename(pointer)
    assert decide(workspace.workspace()).approved


def rollback(workspace, *, to=""):
    config = {"ops": {"restored_model": {"config": {"reason": "too many coupons", "bundle": to}}}}
    done = rollback_job.execute_in_process(resources={"workspace": workspace}, run_config=config)
    return done.all_events


def test_too_many_broken_rows_stop_the_run_and_name_the_rule(workspace, shop, first_run, tmp_path):
    exposures = pd.read_parquet(shop / "exposures.parquet")
    exposures["item_id"] = exposures["item_id"].where(exposures.index % 3 > 0, "c99")
    shutil.copytree(shop, tmp_path, dirs_exist_ok=True)
    exposures.to_parquet(tmp_path / "exposures.parquet")
    broken = _changed(workspace, source=str(tmp_path / "source.toml"))
    result = _run(broken, raise_on_error=False)
    assert not result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed and check.blocking]
    (rules,) = [check.metadata["failed_rules"].value for check in failed]
    assert rules[0]["rule"] == "exposures.item_id_known"
    assert rules[0]["rows"] > 100
    assert any("c99" in value for value in rules[0]["sample"])
    ran = {event.step_key for event in result.all_events if event.event_type_value == "STEP_SUCCESS"}
    assert "feature_rows" not in ran


@pytest.fixture(scope="module")
def later(workspace, shop, first_run, tmp_path_factory):
    """The same shop, when the campaign with which the test part began is old enough to learn from."""
    folder = tmp_path_factory.mktemp("later")
    shutil.copytree(shop, folder, dirs_exist_ok=True)
    (folder / "source.toml").write_text(SOURCE.replace("2024-03-20", "2024-04-05"))
    return _changed(workspace, source=str(folder / "source.toml"))


@pytest.fixture(scope="module")
def retraining(workspace, later):
    """A run on that shop: what served and what was evaluated before, and how it ended."""
    return _serving(workspace), champion(workspace.workspace()).name, _run(later)


def test_a_retraining_begins_with_the_model_that_serves(workspace, later, retraining):
    serving, evaluated, result = retraining
    assert result.success
    begun = f"from champion {evaluated[:12]}, warm start 1 of 4"
    assert _metadata(result, "model_bundle")["initialization"] == begun
    assert _serving(workspace) != serving
    assert train(later.workspace()).created is False


def test_a_pin_outlives_a_run_and_the_model_that_waits_is_deployed_after_it(workspace, later, retraining):
    waiting = _serving(workspace)
    assert waiting != _report(workspace)["bundle"]
    restored = rollback(workspace)
    pinned = _serving(workspace)
    assert pinned != waiting
    materialized = [event for event in restored if event.event_type_value == "ASSET_MATERIALIZATION"]
    assert [event.asset_key.to_user_string() for event in materialized] == ["deployed_model"]
    result = _run(later)
    assert result.success
    report, note = _report(workspace), _metadata(result, "deployed_model")["note"]
    assert report["gate"]["approved"] is True
    assert (report["pin"]["bundle"], report["waiting"], _serving(workspace)) == (pinned, waiting, pinned)
    for text in (note, report_table(report)):
        assert f"model {pinned[:12]} is pinned" in text and f"approved model {waiting[:12]} waits" in text
        assert ": too many coupons" in text
    assert unpin_job.execute_in_process(resources={"workspace": workspace}).success
    assert deploy(later.workspace()).changed
    assert _serving(workspace) == waiting


def test_a_full_retraining_is_done_on_request(later):
    assets = [asset for asset in ASSETS if "model_bundle" in {key.to_user_string() for key in asset.keys}]
    config = {"ops": {"model_bundle": {"config": {"full": True}}}}
    result = _run(later, assets, run_config=config)
    assert _metadata(result, "model_bundle")["initialization"] == "from scratch"
    assert train(later.workspace()).created is False  # on the same examples, the full one stays


def test_a_search_leaves_a_recipe_that_trainings_take(later):
    space = later.workspace().home.root / "space.toml"
    space.write_text("tabular_model.ensemble_size = [1, 2]")
    config = {"ops": {"searched_recipe": {"config": {"trials": 2, "space": str(space)}}}}
    result = _run(later, [searched_recipe], run_config=config)
    found = _metadata(result, "searched_recipe")
    assert found["num_trials"] == 2
    assert found["use_it"] == f"RECOMMENDER_RECIPE={later.workspace().home.recipes / 'small_shop.toml'}"
    assert train(_changed(later, recipe=str(found["recipe"])).workspace()).facts["bundle"]


def test_a_night_s_data_are_served_by_the_model_that_serves(workspace, shop, first_run, tmp_path):
    shutil.copytree(shop, tmp_path / "shop")
    path = tmp_path / "shop" / "events.csv"
    events = pd.read_csv(path)
    day_after = pd.to_datetime(events["when"], errors="coerce").max() + pd.Timedelta(days=1)
    more = events.tail(1).assign(event_id="of the night", when=str(day_after))
    pd.concat([events, more]).to_csv(path, index=False)
    deployment = workspace.workspace().home.deployment.parent
    before = current_release(deployment)
    night = _changed(workspace, source=str(tmp_path / "shop" / "source.toml"))
    result = _run(night, selection=data_job({}).selection)
    assert result.success
    keys = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert "served_features" in keys and not keys & {"training_examples", "model_bundle", "deployed_model"}
    after = current_release(deployment)
    assert after.bundle == before.bundle
    assert before.horizon < after.horizon >= day_after.isoformat()
    assert _metadata(result, "served_features")["horizon"] == after.horizon
