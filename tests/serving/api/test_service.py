"""The service in this process, over ASGI: requests good and bad, and how the served model is replaced."""

import gzip
import json
import re
from dataclasses import replace
from datetime import datetime

import pytest

from expectations.contracts.bundle import bundle_hash
from serving.api.hot_swap import HotSwap
from serving.api.loading import check, load_release
from serving.api.schema import RecommendReply
from serving.release.deployment import rollback
from tests.ledgers import event
from tests.serving.api.conftest import CONTEXT, served
from tests.serving.conftest import put

pytestmark = pytest.mark.slow


@pytest.fixture(name="client", scope="module")
def _client(shop, bundles, bento_home, tmp_path_factory, url):
    home = tmp_path_factory.mktemp("asgi")
    put(home, shop, bundles[0])
    with served(home, url) as client:
        yield client


def test_a_list_with_everything_in_it(client, bundles) -> None:
    reply = client.post("/recommend", json={"user_id": "u1", "context": CONTEXT, "k": 4})
    assert reply.status_code == 200
    told = reply.json()
    assert set(told) == set(RecommendReply.model_fields)
    assert told["bundle"] == bundle_hash(bundles[0])
    assert told["as_of"] == "2020-03-01T00:00:00+00:00"  # the clock of this shop is its data's
    assert not told["cold_start"]
    assert [item["position"] for item in told["items"]] == [1, 2, 3, 4]
    assert all(item["reasons"] for item in told["items"])
    again = client.post("/recommend", json={"user_id": "u1", "context": CONTEXT, "k": 4}).json()
    assert again["items"] == told["items"]
    assert again["decision_id"] != told["decision_id"]


def test_cold_start_user_is_served(client) -> None:
    told = client.post("/recommend", json={"user_id": "never seen", "k": 100}).json()
    assert told["cold_start"]
    assert len(told["items"]) == 8


def test_time_query_and_candidates(client) -> None:
    body = {
        "user_id": "u1",
        "context": {"time": "2020-02-01T12:00:00+02:00"},
        "query": "pizza please",
        "candidates": ["c8", "c2", "c9"],
    }
    told = client.post("/recommend", json=body).json()
    assert told["as_of"] == "2020-02-01T10:00:00+00:00"
    assert {item["item_id"] for item in told["items"]} == {"c8", "c2"}
    assert list(told["skipped"]) == ["c9"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"user_id": "u1", "kk": 3}, "unknown field 'kk'; known: user_id, scenario"),
        ({"scenario": "campaign"}, "field 'user_id' is missing"),
        ({"user_id": ""}, "user_id: "),
        ({"user_id": True}, "user_id: "),
        ({"user_id": None}, "field 'user_id' is missing"),
        ({"user_id": " "}, "user_id: "),
        ({"user_id": "u\0"}, "user_id: it has the character NUL"),
        ({"user_id": "u1", "k": 0}, "k: "),
        ({"user_id": "u1", "k": 101}, "k: "),
        ({"user_id": "u1", "k": "many"}, "k: "),
        ({"user_id": "u1", "scenario": "billboard"}, "scenario: "),
        ({"user_id": "u1", "context": {"time": "yesterday"}}, "context.time: "),
        ({"user_id": "u1", "context": {"time": 1577880000}}, "ISO 8601"),
        ({"user_id": "u1", "context": {"time": "1577880000"}}, "ISO 8601"),
        ({"user_id": "u1", "context": {"time": "0001-01-01T00:00:00+14:00"}}, "context.time"),
        ({"user_id": "u1", "context": {"moon": "full"}}, "unknown key 'moon'"),
        ({"user_id": "u1", "context": {"basket_value": "much"}}, "basket_value"),
        ({"user_id": "u1", "context": {"weather": ["rain"]}}, "weather"),
        ({"user_id": "u1", "candidates": ["none"]}, "none is unknown: use item ids"),
        ({"user_id": "u1", "candidates": []}, "candidates: "),
        ({"user_id": "u1", "candidates": ["c8"]}, "c8 ended on 2020-02-20"),
        ({"user_id": "u1", "scenario": "ad"}, "nothing may be shown in scenario ad"),
    ],
)
def test_bad_requests_are_refused_in_words(client, body, said) -> None:
    reply = client.post("/recommend", json=body)
    assert reply.status_code == 400, reply.text
    assert list(reply.json()) == ["error"]
    assert said in reply.json()["error"]


def test_one_request_in_many_dresses(client) -> None:
    plain = client.post("/recommend", json={"user_id": "u1", "k": 10}).json()
    nulls = {"user_id": " u1 ", "k": None, "context": None, "scenario": None, "query": None}
    assert client.post("/recommend", json=nulls).json()["items"] == plain["items"]
    packed = gzip.compress(b"\xef\xbb\xbf" + json.dumps(nulls).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/recommend", content=packed, headers=headers).json()["items"] == plain["items"]
    assert client.post("/recommend", json={"user_id": 17}).json()["user_id"] == "17"


def test_unknown_candidates_are_skipped(client) -> None:
    told = client.post("/recommend", json={"user_id": "u1", "candidates": ["c2", "no such"]}).json()
    assert [item["item_id"] for item in told["items"]] == ["c2"]
    assert told["skipped"]["no such"].startswith("is unknown")


def count_appended(client) -> float:
    counted = re.search(
        r'recommender_recorded_total{status="appended",table="events"} (\S+)', client.get("/metrics").text
    )
    return float(counted[1]) if counted else 0.0


def test_what_happened_is_recorded_and_counted(client) -> None:
    rows = [event("e1", event_timestamp="2020-02-01T00:00:00Z"), event("e1", event_type="click")]
    counted_before = count_appended(client)
    told = client.post("/events", json=rows).json()
    assert (told["appended"], [one["status"] for one in told["refused"]]) == (1, ["conflict"])
    assert (
        client.post("/events", json={"event_id": 3}).json()["error"].startswith("user_id: the required value")
    )
    assert count_appended(client) == counted_before + 1
    assert {"/recommend", "/events", "/outcomes"} <= client.get("/docs.json").json()["paths"].keys()


@pytest.mark.parametrize("path", ["/recommend", "/events", "/metrics", "/metrics/"])
def test_beyond_this_machine_a_key_is_needed(client, path) -> None:
    with_a_body = {"json": event()} if "metrics" not in path else {}
    method = client.post if with_a_body else client.get
    reply = method(f"http://192.0.2.7:3001{path}", **with_a_body)
    assert reply.status_code == 401
    assert "needs a key" in reply.json()["error"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"3", b"\xff", b'{"user_id": "u1", "k": NaN}'])
def test_bodies_that_are_no_request(client, content) -> None:
    reply = client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["error"]


def test_health_docs_and_page(client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    spec = client.get("/docs.json").json()
    asked = spec["components"]["schemas"]["RecommendRequestIODescriptor"]
    assert set(asked["properties"]) == {"user_id", "scenario", "context", "query", "candidates", "k"}
    assert asked["example"]["user_id"] == "1"
    assert "/recommend" in spec["paths"]
    assert client.get("/").status_code == 200


def test_the_page_reports_to_nobody(client) -> None:
    page = client.get("/")
    assert "googletagmanager.com" in page.text  # what the policy is for
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe-inline" not in policy.split("style-src")[0]
    about = client.get("/docs.json").json()["info"]
    assert about["title"] == "Campaign recommender" and "/recommend" in about["description"]
    assert "http" not in str(about)


@pytest.fixture(name="swap")
def _swap(home, shop):
    loaded = []
    path = home / "deployment" / "current.json"
    swap = HotSwap(path, load_release, loaded.append)
    swap.loads = loaded
    return swap


def test_swap_follows_the_pointer(swap, home, shop, bundles) -> None:
    assert not swap.poll()
    assert swap.loaded is None
    assert "make run" in swap.problem
    first = put(home, shop, bundles[0])
    assert swap.poll()
    assert not swap.poll()
    assert (swap.loaded.release, swap.problem) == (first, "")
    second = put(home, shop, bundles[1])
    assert swap.poll()
    assert swap.loaded.ranker.predictor.hash == second.bundle
    rollback(home / "deployment", gate_decisions=home / "gate_decisions", who="ann", check=check)
    assert swap.poll()
    bundles_in_turn = [loaded.release.bundle for loaded in swap.loads]
    assert bundles_in_turn == [first.bundle, second.bundle, first.bundle]


def test_what_cannot_be_loaded_is_refused_and_the_old_model_goes_on(swap, home, shop, bundles) -> None:
    put(home, shop, bundles[0])
    swap.poll()
    before = swap.loaded
    released = put(home, shop, bundles[1]).model
    content = (released / "texts.parquet").read_bytes()
    (released / "texts.parquet").write_bytes(content + b"x")
    assert not swap.poll()
    assert swap.loaded is before
    assert "texts.parquet was altered" in swap.problem
    (home / "deployment" / "current.json").write_text("{")
    assert not swap.poll()
    assert swap.loaded is before
    assert "deployment pointer" in swap.problem
    put(home, shop, bundles[1])  # the deployment finds the altered copy and makes it anew
    assert swap.poll()
    assert swap.problem == ""


def test_clock_now_is_the_time_of_a_request_that_names_none(home, shop, bundles) -> None:
    release = put(home, shop, bundles[0])
    assert release.default_as_of() == datetime(2020, 3, 1)
    now = replace(release, clock="now").default_as_of()
    assert now.tzinfo is None
    assert now > datetime(2026, 1, 1)
