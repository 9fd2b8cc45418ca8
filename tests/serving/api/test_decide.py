"""POST /decide over ASGI with a real model and a real ledger: rules, caps, the log, and the same answer again."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from expectations.contracts.decision import ExplorationPolicy
from expectations.errors import SettingError
from serving.api.loading import load_release
from serving.api.recording import Recorder
from serving.api.schema import DecideReply, DecideRequest
from serving.decision.exploration import list_propensities
from tests.ledgers import emptied, stored
from tests.serving.api.conftest import CONTEXT, served
from tests.serving.conftest import put

pytestmark = pytest.mark.slow
DECISION = """
[decision]
exploration = "softmax"
temperature = 0.1
holdout_fraction = 0.25
[[decision.rules]]
name = "no storm offers"
when = "context.weather != 'storm' || item.campaign_type == 'A'"
[[decision.rules]]
name = "rich baskets"
when = "item.item_id != 'c3' || context.basket_value > 10.0"
[[decision.rules]]
name = "not the first"
when = "item.item_id != 'c0'"
[[decision.caps]]
name = "twice a day"
per = "item"
at_most = 2
days = 1
[[decision.caps]]
name = "four of a type"
per = "campaign_type"
at_most = 4
days = 1
"""


def declared(shop, folder, section):
    source = folder / "source.toml"
    source.write_text(shop.source.read_text() + section)
    return replace(shop, source=source)


@pytest.fixture(name="service", scope="module")
def _service(shop, bundles, bento_home, tmp_path_factory, url):
    engine = emptied(url)
    home = tmp_path_factory.mktemp("decide")
    put(home, declared(shop, tmp_path_factory.mktemp("source"), DECISION), bundles[0])
    with served(home, url) as client:
        yield SimpleNamespace(client=client, database=engine)


def decide(service, user_id, k=3, context=CONTEXT, **body):
    return service.client.post("/decide", json={"user_id": user_id, "k": k, "context": context, **body})


def rows(service, table, user_id):
    return [row for row in stored(service.database, table) if row["user_id"] == user_id]


def test_a_decision_is_logged_with_what_it_shows(service):
    reply = decide(service, "u1", request_id="r1")
    assert reply.status_code == 200, reply.text
    told = reply.json()
    assert set(told) == set(DecideReply.model_fields)
    assert (told["logged"], told["request_id"], len(told["items"])) == (True, "r1", 3)
    assert told["skipped"] == {"c0": {"rule": "not the first", "reason": "the rule does not hold"}}
    (decision,) = rows(service, "decisions", "u1")
    exposures = rows(service, "exposures", "u1")
    assert decision["reply"] == told
    for exposure, item in zip(exposures, told["items"], strict=True):
        for name in ("exposure_id", "item_id", "position", "propensity"):
            assert exposure[name] == item[name], name
        assert (exposure["request_id"], exposure["channel"]) == (told["decision_id"], "mail")
        assert exposure["extra"] == {"weather": "rain", "basket_value": 12.5}
        assert exposure["event_timestamp"] == decision["event_timestamp"]
        assert item["score"] == item["probability"]  # no item of this shop has a value


def test_logged_propensities_follow_from_what_was_logged(service):
    """From the row of the ledger alone: scores and policy give the propensities of those shown."""
    told = decide(service, "u2").json()
    (decision,) = rows(service, "decisions", "u2")
    ids, scores = zip(*decision["candidates"], strict=True)
    logged = decision["propensities"]
    policy = ExplorationPolicy(**{name: logged[name] for name in ("kind", "temperature", "holdout_fraction")})
    assert policy == ExplorationPolicy(kind="softmax", temperature=0.1, holdout_fraction=0.25)
    shown = np.array([[ids.index(item) for item, _ in logged["shown"]]])
    found = list_propensities(np.array(scores), shown, policy)[0]
    np.testing.assert_allclose(found, [item["propensity"] for item in told["items"]], rtol=1e-9)
    assert told["probability_of_list"] == pytest.approx(np.prod(found))


def test_the_same_request_id_gets_the_same_answer_and_is_logged_once(service):
    first, again = (decide(service, "u3", request_id="r1").json() for _ in range(2))
    assert first == again
    assert len(rows(service, "decisions", "u3")) == 1
    assert len(rows(service, "exposures", "u3")) == 3
    other = decide(service, "u3", k=2, request_id="r1")
    assert other.status_code == 409
    assert "it was used before with another k" in other.json()["error"]
    assert decide(service, "u4", request_id="r1").json()["decision_id"] != first["decision_id"]


def test_rules_read_item_and_context(service):
    told = decide(service, "u5", k=10, context={**CONTEXT, "weather": "storm", "basket_value": 9}).json()
    assert {item["item_id"] for item in told["items"]} == {"c1", "c5", "c7"}
    assert told["skipped"]["c2"]["rule"] == "no storm offers"
    assert told["skipped"]["c3"]["rule"] == "rich baskets"
    unknown = decide(
        service, "u6", context={"channel": "mail"}
    ).json()  # no basket_value: the rule fails on c3
    assert unknown["skipped"]["c3"]["reason"].startswith("the rule failed")


def test_caps_count_what_was_shown_before(service):
    """7 items are eligible, 3 of type B and 4 of type A; of a type 4 may be shown a day, of an item 2."""
    first = decide(service, "u7", k=10).json()
    assert len(first["items"]) == 7
    second = decide(service, "u7", k=10).json()
    kinds = [int(item["item_id"][1]) % 2 for item in second["items"]]
    assert kinds == [0]  # one place is left of type B, none of type A
    third = decide(service, "u7", k=10).json()
    assert third["items"] == [] and third["probability_of_list"] == 1.0
    rules = {item: why["rule"] for item, why in third["skipped"].items() if item != "c0"}
    twice = second["items"][0]["item_id"]
    assert rules == {f"c{n}": "twice a day" if f"c{n}" == twice else "four of a type" for n in range(1, 8)}
    assert len(rows(service, "decisions", "u7")) == 3
    assert len(decide(service, "u8", k=10).json()["items"]) == 7


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"kk": 3}, 400, "unknown field 'kk'; known: user_id, scenario"),
        ({"request_id": ""}, 400, "request_id"),
        ({"request_id": "a\0"}, 400, "NUL"),
        ({"scenario": "ad"}, 400, "nothing may be shown in scenario ad"),
        ({"context": {"moon": "full"}}, 400, "unknown key 'moon'"),
        ({"context": {"channel": "a\0"}}, 400, "NUL"),
        ({"context": {"time": "2199-01-01T00:00:00Z"}}, 400, "not_in_future"),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(service, body, status, said):
    reply = service.client.post("/decide", json={"user_id": "bad", **body})
    assert (reply.status_code, said in reply.json()["error"]) == (status, True), reply.text
    assert rows(service, "decisions", "bad") == rows(service, "exposures", "bad") == []


def test_it_is_in_the_document_counted_and_locked(service):
    spec = service.client.get("/docs.json").json()
    assert "/decide" in spec["paths"]
    assert "request_id" in spec["components"]["schemas"]["DecideRequestIODescriptor"]["properties"]
    assert service.client.post("http://192.0.2.7:3001/decide", json={"user_id": "u1"}).status_code == 401
    decide(service, "u9")
    assert 'logged="true"' in service.client.get("/metrics").text


def test_without_a_ledger_it_is_refused_or_answered_as_declared(service, monkeypatch):
    from serving.api import service as module

    monkeypatch.setattr(module._recorder, "_url", "")
    reply = decide(service, "u10")
    assert reply.status_code == 503
    assert "without a ledger" in reply.json()["error"]
    assert reply.headers["retry-after"] == "5"
    assert rows(service, "decisions", "u10") == []


def test_without_a_ledger_it_is_answered_where_the_declaration_says_so(shop, bundles, home, tmp_path):
    section = DECISION.replace("[decision]", '[decision]\nwithout_ledger = "answer"', 1)
    release = put(home, declared(shop, tmp_path, section), bundles[0])
    decider, log = load_release(release).decider, Recorder()  # one that was started without a URL
    request = DecideRequest(user_id="u1", request_id="r1", k=3, context=CONTEXT)
    body = decider.decide(request, log).body
    assert (body["logged"], len(body["items"])) == (False, 3)
    assert decider.decide(request, log).body == body  # the generator is seeded by the request
    others = {
        tuple(item["item_id"] for item in decider.decide(other, log).body["items"])
        for other in (request.model_copy(update={"request_id": f"r{n}"}) for n in range(2, 10))
    }
    assert len(others) > 1


def test_a_wrong_rule_is_refused_before_it_serves(shop, bundles, home, tmp_path):
    wrong = '[[decision.rules]]\nname = "of age"\nwhen = "user.agee > 18.0"\n'
    with pytest.raises(SettingError, match="rule 'of age', line 1, column 5 of `when`: undeclared reference"):
        put(home, declared(shop, tmp_path, wrong), bundles[0])
    wrong = '[[decision.caps]]\nname = "few"\nper = "colour"\nat_most = 1\ndays = 1\n'
    with pytest.raises(SettingError, match="cap 'few' is per 'colour', which items do not have"):
        put(home, declared(shop, tmp_path, wrong), bundles[0])
