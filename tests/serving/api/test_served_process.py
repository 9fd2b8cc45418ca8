"""The service as `bentoml serve` runs it: a process of its own, deployed into while it answers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from expectations.contracts.bundle import bundle_hash
from orchestration.local.instance import PROJECT
from orchestration.local.processes import free_port, wait_until
from orchestration.local.stack import SERVICE, api_service, responds
from serving.api.schema import RecommendReply
from tests.serving.conftest import put

pytestmark = pytest.mark.slow

NUM_REQUESTS = 300
WAIT_SECONDS = 120


def until(what, process: subprocess.Popen) -> None:
    assert wait_until(lambda: process.poll() is not None or what(), WAIT_SECONDS), (
        "it did not get there in time"
    )
    assert process.poll() is None, "the service ended"


@contextmanager
def served(service: str, home: Path, bento_home: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    """A module of the checkout or a Bento, as `bentoml serve` serves it, and a client of it."""
    port = free_port()
    environment = {**os.environ, "BENTOML_HOME": str(bento_home), "RECOMMENDER_HOME": str(home)}
    argv = api_service(port, service).argv
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=40, trust_env=False) as client:
        try:
            until(lambda: responds(f"http://127.0.0.1:{port}/healthz"), process)
            yield client, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            sys.stderr.write((home / "log").read_text()[-4000:])


@pytest.fixture(name="api")
def _api(home, bento_home):
    with served(SERVICE, home, bento_home) as api:
        yield api


def listening(process: subprocess.Popen) -> set[str]:
    """The addresses on which a process and its children take connections."""
    parent = psutil.Process(process.pid)
    connections = [c for one in (parent, *parent.children(True)) for c in one.net_connections("tcp")]
    return {str(c.laddr.ip) for c in connections if c.status == psutil.CONN_LISTEN}


def ask(client: httpx.Client, number: int) -> httpx.Response:
    return client.post("/recommend", json={"user_id": f"u{number % 30}", "k": 5})


@contextmanager
def steady_requests(client: httpx.Client) -> Iterator[tuple[Counter, Counter]]:
    """Two threads that ask without a pause: how many replies of each status, and of each bundle."""
    statuses, served, stop = Counter(), Counter(), threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            try:
                reply = ask(client, number := number + 1)
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1
                continue
            statuses[reply.status_code] += 1
            served[reply.json().get("bundle")] += 1

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses, served
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_bento_that_was_built_serves(home, shop, bundles, bento_home) -> None:
    release = put(home, shop, bundles[0])
    with served(release.bento_tag, home, bento_home) as (client, process):
        until(lambda: client.get("/readyz").status_code == 200, process)
        reply = ask(client, 1)
        assert (reply.status_code, reply.json()["bundle"]) == (200, release.bundle)
        put(home, shop, bundles[1])
        until(lambda: ask(client, 2).json()["bundle"] == bundle_hash(bundles[1]), process)


def test_deployed_into_while_it_answers(api, home, shop, bundles) -> None:
    client, process = api
    assert listening(process) == {"127.0.0.1"}
    assert client.get("/readyz").status_code == 503
    reply = ask(client, 1)
    assert reply.status_code == 503
    assert "no model is deployed" in reply.json()["error"]

    put(home, shop, bundles[0])
    until(lambda: client.get("/readyz").status_code == 200, process)
    RecommendReply.model_validate(ask(client, 1).json())
    assert client.post("/recommend", json={"user_id": "u1", "usr": 1}).status_code == 400

    first, second = map(bundle_hash, bundles)
    with steady_requests(client) as (statuses, served):
        put(home, shop, bundles[1])
        until(lambda: served[second] > 20 and statuses.total() > NUM_REQUESTS, process)
    assert set(statuses) == {200}
    assert set(served) == {first, second}

    counted = client.get("/metrics").text
    assert 'recommender_requests_total{cold_start="false",scenario="campaign",status="200"}' in counted
    assert f'recommender_bundle{{bundle="{second}"' in counted
    assert "recommender_seconds_bucket" in counted


def test_a_rollback_takes_seconds_and_no_request_fails(api, home, shop, bundles) -> None:
    client, process = api
    for bundle in bundles:
        put(home, shop, bundle)
    first, second = map(bundle_hash, bundles)
    until(lambda: client.get("/readyz").status_code == 200, process)
    with steady_requests(client) as (statuses, served):
        until(lambda: served[second] > 20, process)
        argv = [sys.executable, "-m", "orchestration", "rollback", "--reason", "too many coupons"]
        environment = {**os.environ, "RECOMMENDER_HOME": str(home)}
        begun = time.monotonic()
        subprocess.run(argv, cwd=PROJECT, env=environment, check=True, stdout=subprocess.DEVNULL)
        pointed = time.monotonic() - begun
        until(lambda: served[first] > NUM_REQUESTS, process)
    assert set(statuses) == {200}
    assert set(served) == {first, second}
    assert pointed < 5
