"""Pages beside Dagster's UI, served by the real programs: Data Docs and TensorBoard; and the ports of all services."""

import argparse
import dataclasses
import os
import socket

import httpx
import pytest
from starlette.testclient import TestClient
from torch.utils.tensorboard import SummaryWriter

from expectations.suites.data_docs import SITE
from orchestration.assets import metadata
from orchestration.environment import DATA_DOCS_URL, TENSORBOARD_URL
from orchestration.local import cli
from orchestration.local.data_docs import application
from orchestration.local.processes import free_port
from orchestration.local.stack import Ports, page_addresses, page_services, serving
from orchestration.local.supervision import Supervisor


@pytest.fixture(name="page")
def _page(home):
    page = home.gx / SITE / "validations" / "a suite.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>every rule</h1>")
    return page


@pytest.mark.slow
def test_both_are_served_and_linked(home, page, monkeypatch):
    with SummaryWriter(str(home.training / "shop" / "tensorboard" / "v1")) as curves:
        curves.add_scalar("tabular/log_loss", 0.5, 1)
    docs, tensorboard = page_services(home, Ports(docs=free_port(), tensorboard=free_port()))
    with serving(docs, home, os.environ) as at_docs, serving(tensorboard, home, os.environ) as at_tensorboard:
        monkeypatch.setenv(DATA_DOCS_URL, at_docs)
        monkeypatch.setenv(TENSORBOARD_URL, at_tensorboard)
        assert "every rule" in httpx.get(metadata.page(page).value, trust_env=False).text
        linked = metadata.curves(str(home.training / "shop" / "tensorboard" / "v1"))["tensorboard"].value
        assert httpx.get(linked, trust_env=False).is_success
        runs = httpx.get(f"{at_tensorboard}/data/runs", trust_env=False).json()
        assert runs == ["shop/tensorboard/v1"]


def test_without_the_services_a_page_is_a_path(page, monkeypatch):
    monkeypatch.delenv(DATA_DOCS_URL, raising=False)
    monkeypatch.delenv(TENSORBOARD_URL, raising=False)
    assert metadata.page(page).value == str(page)
    assert list(metadata.curves("logs/v1")) == ["tensorboard_folder"]


def test_data_docs_are_for_this_machine_alone(home, page):
    def get(host: str, path: str) -> httpx.Response:
        return TestClient(application(home.gx / SITE), base_url=f"http://{host}:3002").get(path)

    assert "every rule" in get("127.0.0.1", "/validations/a suite.html").text
    assert get("localhost", "/validations/../validations/a%20suite.html").is_success
    assert get("evil.example", "/validations/a suite.html").status_code == 400
    assert get("127.0.0.1", "/..%2f..%2f..%2f..%2fmask.key").status_code == 404


def test_data_docs_that_are_not_there_yet(tmp_path):
    reply = TestClient(application(tmp_path / "none"), base_url="http://localhost").get("/index.html")
    assert reply.status_code == 404


def test_ports_are_those_asked_for_then_those_in_use_then_free_ones(home, postgres, monkeypatch):
    context = cli.Context(home=home, postgres=postgres, environ={})
    nothing = argparse.Namespace(port_ui=None, port_api=4001, port_docs=None, port_tensorboard=None)
    monkeypatch.setattr(Supervisor, "facts", lambda _: {"ports": {"ui": 4000}})
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        usual = dataclasses.replace(Ports(), docs=taken)
        monkeypatch.setattr(cli, "Ports", lambda **ports: usual if not ports else Ports(**ports))
        found = cli._ports(context, nothing)
    assert (found.ui, found.api) == (4000, 4001)
    assert found.docs not in (taken, 3002)


def test_addresses_of_what_runs():
    assert page_addresses({"docs": 3002, "api": 3001, "tensorboard": None}) == {
        DATA_DOCS_URL: "http://127.0.0.1:3002"
    }
