"""A version of the Feast store: whole in its folder, wherever that lies, and used as Feast's users expect."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pandas as pd
import pytest

from expectations.errors import SchemaError
from expectations.storage.datasets import current_folder
from features.online.consistency import compare_stores
from features.store.build import build_store
from features.store.client import online, open_store, stored
from features.store.definitions import ITEM_VIEWS, USER_VIEWS
from features.views.feature_schema import CANDIDATE_SERVICE, USER_SERVICE
from orchestration.local.processes import free_port, wait_until
from orchestration.local.stack import responds
from tests.features import small_shop
from tests.features.built_shop import BuiltShop, build

pytestmark = pytest.mark.slow


@pytest.fixture(name="shop", scope="module")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> BuiltShop:
    home = tmp_path_factory.mktemp("shop")
    return build(small_shop.SOURCE, small_shop.land(home / "checked", small_shop.frames()), home)


def feast(folder: Path, *arguments: str) -> str:
    """What a command of Feast's prints."""
    argv = [sys.executable, "-W", "ignore", "-m", "feast.cli.cli", "--chdir", str(folder), *arguments]
    found = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_filling_a_store_prints_nothing_and_does_it_once(
    shop: BuiltShop, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="features.store.build"):
        facts, created = build_store("small", shop.snapshots, tmp_path / "store")
    assert created and facts["feature_rows"] == shop.snapshots.name
    assert capfd.readouterr().out == ""
    assert "user_behaviour:" in caplog.messages and "\x1b" not in caplog.text
    before = (tmp_path / "store" / facts["version"] / "online.db").stat().st_mtime_ns
    assert build_store("small", shop.snapshots, tmp_path / "store") == (facts, False)
    assert (tmp_path / "store" / facts["version"] / "online.db").stat().st_mtime_ns == before


def test_a_store_is_whole_when_its_rows_are_removed_and_it_is_moved(shop: BuiltShop, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    shutil.copytree(shop.snapshots, rows)
    build_store("small", rows, tmp_path / "store")
    shutil.rmtree(rows)
    (tmp_path / "store").rename(tmp_path / "moved")
    folder = current_folder(tmp_path / "moved")
    found = compare_stores(folder, shop.horizon)
    assert (found.num_differences, found.num_users > 3) == (0, True)
    assert not [path for path in folder.iterdir() if str(tmp_path).encode() in path.read_bytes()]


def test_what_the_store_says_is_each_entitys_row(shop: BuiltShop) -> None:
    store = open_store(shop.store)
    rows = pd.read_parquet(shop.store / "item_attributes.parquet").set_index("item_id")
    ids = [*rows.index, "never seen"]
    found = online(store, stored(store, CANDIDATE_SERVICE), [{"item_id": name} for name in ids])
    for name in rows.columns.intersection(pd.Index(found)):
        expected = [None if pd.isna(value) else value for value in rows[name]] + [None]
        assert [None if pd.isna(value) else value for value in found[name]] == expected, name


def test_feasts_own_commands_work_in_the_folder(shop: BuiltShop, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(shop.store, folder)
    listed = feast(folder, "feature-views", "list")
    assert all(name in listed for name in (*USER_VIEWS, *ITEM_VIEWS))
    assert USER_SERVICE in feast(folder, "feature-services", "list")
    feast(folder, "apply")
    assert compare_stores(folder, shop.horizon).num_differences == 0


def test_feasts_own_pages_show_the_store(shop: BuiltShop, tmp_path: Path) -> None:
    folder, port = tmp_path / "store", free_port()
    shutil.copytree(shop.store, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    argv = [sys.executable, "-W", "ignore", "-m", "feast.cli.cli", "--chdir", str(folder), "ui"]
    with (tmp_path / "log").open("wb") as log:
        ui = subprocess.Popen([*argv, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        ready = wait_until(lambda: responds(f"{address}/projects-list.json") or ui.poll() is not None, 90)
        assert ready and ui.poll() is None, (tmp_path / "log").read_text()
        (project,) = httpx.get(f"{address}/projects-list.json", trust_env=False).json()["projects"]
        asked = {"project": project["id"]}
        found = httpx.get(f"{address}/api/v1/feature_views", params=asked, trust_env=False)
        assert all(name in found.text for name in (*USER_VIEWS, *ITEM_VIEWS)), found.text
    finally:
        ui.terminate()
        ui.wait(30)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_without_a_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="is no Feast store"):
        open_store(tmp_path)
