"""A shopper is erased from a home with everything in it: no byte of the id is left, and none comes back."""

import json
import subprocess
import sys

import pandas as pd
import psycopg2
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from expectations.contracts.ledger import URL_VARIABLE
from expectations.contracts.source import read_source
from expectations.errors import RequestError, TransientError
from expectations.storage.atomic import read_json, write_json
from expectations.storage.links import link_folder
from orchestration.home import Home
from orchestration.local import cli
from orchestration.local.instance import PROJECT
from orchestration.local.postgres import PostgresSettings, database_url, running
from orchestration.local.processes import free_port
from orchestration.pipeline import data as steps
from orchestration.pipeline.copies import remove_copies
from orchestration.pipeline.erasure import erase
from orchestration.pipeline.workspace import Workspace
from serving.ledger.ledger import open_ledger
from tests.features import small_shop
from tests.ledgers import contracts, event, exposure, statuses
from tests.orchestration.conftest import AWKWARD

pytestmark = pytest.mark.slow

USER = "shopper-77"
SOURCE = """
name = "small_shop"
clock = "data"
[tables.users]
location = "users.csv"
extra = { city = "categorical", age = "numeric", hobby = "text" }
[tables.items]
location = "items.parquet"
[tables.events]
location = "events.csv"
ledger = true
[tables.exposures]
location = "exposures.parquet"
ledger = true
[tables.feedback]
location = "feedback.parquet"
[split]
test_from = 2024-03-20
"""
STAYS = ("features", "tables", "checked", "deployment")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop's folder: of its shoppers u3 is the one to be erased, who has a line that is no row, too."""
    folder = tmp_path_factory.mktemp("shop")
    tables = {
        name: table.replace({"user_id": {"u3": USER}}) if "user_id" in table else table
        for name, table in small_shop.frames(num_users=40, num_events=2000).items()
    }
    events = tables["events"].astype({"event_timestamp": str})
    of_user = events.index[events["user_id"] == USER]
    events.loc[of_user[0], "event_timestamp"] = "yesterday"
    events.loc[of_user[1], "event_type"] = "hug"
    events.loc[events.index[events["user_id"] == "u1"][0], "event_type"] = "hug"
    events.to_csv(folder / "events.csv", index=False)
    with (folder / "events.csv").open("a") as file:
        file.write(f"broken,{USER},and,more,than,there,are,columns,in,this,table,of,events\n")
    users = tables["users"]
    pd.concat([users, users[users["user_id"] == USER]]).to_csv(
        folder / "users.csv", index=False
    )  # Data Docs show it
    for name in ("items", "exposures", "feedback"):
        tables[name].to_parquet(folder / f"{name}.parquet")
    (folder / "source.toml").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    home = Home(root=tmp_path_factory.mktemp(AWKWARD))
    with running(home, PostgresSettings(port=free_port())) as addresses:
        yield home, {name: database_url(address) for name, address in addresses.items()}


@pytest.fixture(scope="module")
def workspace(shop, databases):
    home, urls = databases
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL_VARIABLE, urls["ledger"])
        yield Workspace(home=home, source_path=shop / "source.toml")


def run_steps(workspace):
    steps.ingest(workspace)
    steps.validate(workspace)
    steps.build_features(workspace)
    steps.fill_store(workspace)
    return steps.build_examples(workspace)


def holders(home, user=USER):
    """The files of a home that hold an id: Parquet by its values, every other file by its bytes."""
    found = []
    for path in sorted(home.root.rglob("*")):
        if not path.is_file() or path.is_relative_to(home.postgres):
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.ParquetFile(path).read().to_pylist(), default=str).encode()
        if user.encode() in content:
            found.append(str(path.relative_to(home.root)))
    return found


def tables_with(urls, user=USER):
    """The tables of all databases that hold an id in any row."""
    found = []
    for name, url in urls.items():
        connection = psycopg2.connect(url.replace("+psycopg2", ""))
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_schema, table_name FROM information_schema.tables "
                "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
            )
            for schema, table in cursor.fetchall():
                cursor.execute(
                    f'SELECT count(*) FROM "{schema}"."{table}" AS t WHERE t::text LIKE %s',  # noqa: S608
                    [f"%{user}%"],
                )
                if cursor.fetchone()[0]:
                    found.append(f"{name}.{schema}.{table}")
        connection.close()
    return found


def rows_of_others(home):
    """Rows of other shoppers by file."""
    found = {}
    for folder in STAYS:
        for path in sorted((home.root / folder).rglob("*.parquet")):
            table = pq.ParquetFile(path).read()
            if "user_id" in table.column_names:
                others = table.to_pandas()
                found[path] = others[others["user_id"] != USER].reset_index(drop=True)
    return found


def test_a_shopper_is_erased_from_everything_and_stays_away(workspace, shop, databases):
    home, urls = databases
    landed = small_shop.frames(num_users=40, num_events=2000)["exposures"]
    of_file = landed.loc[landed["user_id"] == "u3", "exposure_id"].iloc[0]
    with open_ledger(urls["ledger"], contracts(), mask=workspace.mask()) as ledger:
        now = {"event_timestamp": "2024-05-01T10:00:00Z"}
        mine = [event("l1", user_id=USER, **now), event("l2", user_id="u1", **now), event("l3", user_id=USER)]
        mine[2]["event_type"] = "hug"
        assert statuses(ledger.append("events", mine)) == ["appended", "appended", "invalid"]
        ledger.append("exposures", [exposure(f"of {USER}", user_id=USER, item_id="c1", **now)])
        ledger.append(
            "outcomes",
            [
                {"outcome_id": "o1", "exposure_id": of_file, "outcome": 1, "outcome_timestamp": "2024-06-01"},
                {"outcome_id": "o2", "exposure_id": f"of {USER}", "outcome": 0},
            ],
        )
    run_steps(workspace)
    linked = home.deployment.parent / "releases" / "serves" / "store"
    link_folder(steps.store_folder(workspace), linked)
    write_json(home.report, {"demo_users": [USER, "u1"], "model": {"auc": 0.9}})
    log = home.logs / "api.log"
    log.write_text(f"user_id={USER} asked\nuser_id={USER}8 asked\n", encoding="utf-8")
    writer = log.open("a")
    (home.tables / "small_shop" / ".ingesting-killed").mkdir()
    before, held = rows_of_others(home), holders(home)
    kinds = {path.split("/")[0] for path in held}
    assert {
        "tables",
        "checked",
        "quarantine",
        "features",
        "examples",
        "gx",
        "reports",
        "logs",
        "deployment",
    } <= kinds
    assert len(tables_with(urls)) >= 3

    receipt = erase(home, urls["ledger"], USER)

    assert [path for path in holders(home) if path != "logs/api.log"] == []
    writer.write("goes on\n")
    writer.close()
    assert log.read_text() == f"user_id={'*' * len(USER)} asked\nuser_id={USER}8 asked\ngoes on\n"
    log.unlink()
    assert tables_with(urls) == []
    after = rows_of_others(home)
    assert before.keys() == after.keys() and linked.is_dir()
    for path, rows in before.items():
        pd.testing.assert_frame_equal(rows, after[path], check_dtype=False)
    assert read_json(home.report) == {"demo_users": ["u1"], "model": {"auc": 0.9}}
    said = read_json(receipt.path)
    assert USER not in receipt.path.read_text() + receipt.text() and said[
        "user"
    ] == workspace.mask().user_hash(USER)
    assert said["ledger"]["events"] == said["ledger"]["exposures"] == said["ledger"]["quarantine"] == 1
    assert said["ledger"]["outcomes"] == 2
    assert said["files"]["tables/small_shop/users"] == 2 and said["files"]["checked/small_shop/users"] == 1
    assert any(name.startswith("examples/") for name in said["dropped"]) and "gx" in said["dropped"]

    # the shop's files still have the shopper, and a late client sends rows again
    with open_ledger(urls["ledger"], contracts(), mask=workspace.mask()) as ledger:
        assert statuses(ledger.append("events", mine)) == ["erased", "unchanged", "erased"]
    assert run_steps(workspace).created
    assert holders(home) == [] and tables_with(urls) == []
    users = pq.ParquetFile(next((home.tables / "small_shop" / "users").rglob("*.parquet"))).read()
    assert users.num_rows == 39
    assert sum(erase(home, urls["ledger"], USER).files.values()) == 0


def test_an_erasure_waits_for_an_ingestion_and_wants_an_id(tmp_path, databases):
    home, urls = databases
    with pytest.raises(RequestError, match="id is empty"):
        erase(home, urls["ledger"], " ")
    (home.tables / "small_shop").mkdir(parents=True, exist_ok=True)
    with (
        FileLock(home.tables / "small_shop" / ".lock"),
        pytest.raises(TransientError, match="ingestion is writing"),
    ):
        erase(home, urls["ledger"], "u5")
    with FileLock(home.erasures / ".lock"), pytest.raises(TransientError, match="another erasure is writing"):
        erase(home, urls["ledger"], "u5")


def test_a_plain_number_is_overwritten_only_where_it_says_a_shopper(tmp_path):
    home = Home(root=tmp_path)
    home.logs.mkdir()
    log = home.logs / "api.log"
    log.write_text('user_id=17 17 rows {"user_id": "17"} user_id=170 in 17.3 s\n')
    assert remove_copies(home, "17").rows == {"logs/api.log": 2}
    assert log.read_text() == 'user_id=** 17 rows {"user_id": "**"} user_id=170 in 17.3 s\n'


def test_the_command_erases_in_a_home_where_nothing_ran_yet(tmp_path, postgres):
    environ = {"RECOMMENDER_HOME": str(tmp_path / AWKWARD), "RECOMMENDER_POSTGRES_PORT": str(postgres.port)}
    argv = [sys.executable, "-m", "orchestration", "erase", USER]
    done = subprocess.run(
        argv,
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was found" in done.stdout and USER not in done.stdout
    home = Home(root=tmp_path / AWKWARD)
    (receipt,) = (path for path in home.erasures.glob("*.json") if path.name != "erased.json")
    assert receipt.stat().st_mode & 0o777 == 0o600 and holders(home) == []
    assert cli.parser().parse_args(["erase", "u1"]).user_id == "u1"


def test_retention_is_a_number_of_days_and_forgets_at_each_ingestion(workspace, databases, monkeypatch):
    from dataclasses import replace

    from expectations.errors import SettingError
    from orchestration.resources import WorkspaceResource

    for wrong in ("soon", "0", "-1"):
        with pytest.raises(SettingError, match="RECOMMENDER_RETENTION_DAYS is"):
            WorkspaceResource(retention_days=wrong).workspace()
    assert WorkspaceResource(retention_days="30").workspace().retention_days == 30
    _, urls = databases
    with open_ledger(urls["ledger"], contracts(), mask=workspace.mask()) as ledger:
        ledger.append("events", [event("kept", event_timestamp="2024-05-01")])
        steps.ingest(replace(workspace, retention_days=1))
        assert ledger.counts()["events"].rows >= 1
        monkeypatch.delenv(URL_VARIABLE)
        with pytest.raises(SettingError, match="RECOMMENDER_LEDGER_URL is not set"):
            steps.ingest(replace(workspace, retention_days=1))
    assert read_source(workspace.source_path).tables["events"].ledger
