import dagster as dg
import pytest

from expectations.contracts.shop_tables import CONTRACTS
from expectations.errors import SettingError
from orchestration.definitions import build_definitions
from orchestration.resources import POOL

GROUPS = {"ingestion", "validation", "features", "training", "evaluation", "deployment"}
NUM_ASSETS = 2 * len(CONTRACTS) + 6 + 2 + 7


@pytest.fixture(scope="module")
def definitions():
    return build_definitions({"RECOMMENDER_INGESTION_CRON": "*/5 * * * *"})


def test_every_asset_tells_its_story(definitions):
    dg.Definitions.validate_loadable(definitions)
    specs = list(definitions.resolve_all_asset_specs())
    assert len(specs) == NUM_ASSETS + 1  # a search runs on demand
    assert {spec.group_name for spec in specs} == GROUPS
    for spec in specs:
        assert spec.owners
        assert spec.kinds
        assert spec.tags
        assert "ne row per" in spec.description or spec.description.startswith("One "), spec.key


def test_critical_rules_block_and_warnings_do_not(definitions):
    graph = definitions.resolve_asset_graph()
    blocking = {key.name: graph.get(key).blocking for key in graph.asset_check_keys}
    assert blocking == {
        "critical_rules": True,
        "warning_rules": False,
        "online_equals_offline": True,
        "approved": False,
        "sane": False,
    }


def test_schedules_and_sensors_are_on(definitions):
    schedules = {s.name: s for s in definitions.schedules}
    assert schedules["daily_ingestion"].cron_schedule == "*/5 * * * *"
    assert schedules["weekly_retraining"].cron_schedule == "0 4 * * 0"
    running = [s.default_status.value for s in (*definitions.schedules, *definitions.sensors)]
    assert running == ["RUNNING"] * 4


def test_the_whole_job_takes_every_asset_but_the_search_which_has_no_schedule(definitions):
    job = definitions.resolve_job_def("recommender")
    assert len(job.asset_layer.executable_asset_keys) == NUM_ASSETS
    job = definitions.resolve_job_def("search")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {"searched_recipe"}
    assert "search" not in {schedule.job_name for schedule in definitions.schedules}


def test_the_nightly_job_serves_new_features_and_trains_nothing(definitions):
    keys = definitions.resolve_job_def("data").asset_layer.executable_asset_keys
    names = {key.to_user_string() for key in keys}
    assert {"users", "checked_users", "user_behaviour", "online_features", "served_features"} <= names
    assert not names & {"training_examples", "model_bundle", "final_model", "deployed_model"}


def test_a_run_that_trains_nothing_has_less_time():
    def limit(environ):
        return build_definitions(environ).resolve_job_def("data").tags["dagster/max_runtime"]

    assert limit({}) == str(6 * 3600)
    assert limit({"RECOMMENDER_MAX_RUN_HOURS": "1"}) == "900"


def test_one_run_goes_at_a_time_but_a_rollback_waits_for_none(definitions):
    for job in ("recommender", "data", "search"):
        nodes = definitions.resolve_job_def(job).graph.node_defs
        assert {node.pool for node in nodes} == {POOL}
    for job in ("rollback", "unpin"):
        nodes = definitions.resolve_job_def(job).graph.node_defs
        assert [node.pool for node in nodes] == [None]


def test_a_full_training_is_a_matter_of_the_run_s_config(definitions, monkeypatch):
    job = definitions.resolve_job_def("recommender")
    config = {"ops": {"model_bundle": {"config": {"full": True}}}}
    assert dg.validate_run_config(job, config)["ops"]["model_bundle"]["config"] == {"full": True}
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, {"ops": {"model_bundle": {"config": {"fulll": True}}}})


def test_a_wrong_memory_size_is_the_error_of_a_step_and_not_of_the_definitions():
    workspace = build_definitions({"RECOMMENDER_MEMORY": "much"}).resources["workspace"]
    with pytest.raises(SettingError, match="RECOMMENDER_MEMORY is 'much', which is not a size"):
        workspace.workspace()
