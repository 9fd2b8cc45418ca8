"""What happened, told over HTTP to a real ledger, without a model."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from expectations.storage.masking import KEY_FILE
from serving.api.recording import MAX_ROWS, RECORDED, Recorder, RecordingMiddleware, paths
from serving.release.release import Release
from tests.ledgers import event, stored

SOURCE = """\
name = "a_shop"
[tables.items]
location = "items.csv"
[tables.exposures]
location = "exposures.csv"
extra = { weather = "categorical" }
"""
LINES = {"content-type": "application/x-ndjson"}


def release(folder: Path, source: str = SOURCE) -> Release:
    (folder / "source.toml").write_text(source)
    horizon = "2026-11-01T00:00:00"
    names = {"bundle": "b", "project": "p", "features": "f", "model_tag": "m", "bento_tag": "t"}
    return Release(folder=folder, horizon=horizon, clock="now", **names)


@pytest.fixture(name="recorder")
def _recorder(url, database, tmp_path):
    recorder = Recorder()
    recorder.start(url, tmp_path / KEY_FILE)
    recorder.follow(release(tmp_path))
    yield recorder
    recorder.stop()


@pytest.fixture(name="client")
def _client(recorder):
    return TestClient(RecordingMiddleware(Starlette(), recorder))


def test_a_row_is_appended_once(client, database) -> None:
    first, again = (client.post("/events", json=event()) for _ in range(2))
    assert (first.status_code, first.json()) == (200, {"appended": 1, "unchanged": 0, "refused": []})
    assert (again.status_code, again.json()) == (200, {"appended": 0, "unchanged": 1, "refused": []})
    (row,) = stored(database, "events")
    assert (row["event_id"], row["user_id"]) == ("e1", "u1")


def test_other_content_under_the_same_id_is_a_conflict(client, database) -> None:
    client.post("/events", json=event())
    reply = client.post("/events", json=event(event_type="click"))
    assert reply.status_code == 409
    assert "recorded in events before with another event_type" in reply.json()["error"]
    assert [row["event_type"] for row in stored(database, "events")] == ["view"]


def test_good_rows_go_in_and_bad_ones_are_answered_one_by_one(client, database) -> None:
    rows = [event("e1"), event("e2", event_timestamp="2999-01-01T00:00:00Z"), event(None), 3, event("e3")]
    reply = client.post("/events", json=rows)
    told = reply.json()
    assert (reply.status_code, told["appended"]) == (200, 2)
    assert [(one["row"], one["id"], one["status"]) for one in told["refused"]] == [
        (2, "e2", "invalid"),
        (3, None, "invalid"),
        (4, None, "invalid"),
    ]
    assert "event_id: the required value is missing" in told["refused"][1]["reason"]
    assert [row["event_id"] for row in stored(database, "events")] == ["e1", "e3"]
    assert len(stored(database, "quarantine")) == 3


def test_a_row_a_line(client, database) -> None:
    lines = "\n".join([json.dumps(event("e1")), "", "{not json", json.dumps(event("e2"))])
    reply = client.post("/events", content=lines, headers=LINES)
    told = reply.json()
    assert (reply.status_code, told["appended"], [one["row"] for one in told["refused"]]) == (200, 2, [2])
    assert "{not json" in stored(database, "quarantine")[0]["row"]


def test_one_bad_row_alone_is_a_bad_request(client) -> None:
    reply = client.post("/outcomes", json={"outcome_id": "o1", "exposure_id": "x1", "outcome": "maybe"})
    assert reply.status_code == 400
    assert "outcome: 'maybe' is not" in reply.json()["error"]


def test_every_table_takes_rows_in_the_source_s_columns(client, database) -> None:
    shown = {"exposure_id": "x1", "user_id": 7, "item_id": "c1", "scenario": "campaign", "weather": "rain"}
    rows = {
        "exposures": {**shown, "event_timestamp": "2026-11-29T10:00:00+01:00"},
        "outcomes": {"outcome_id": "x1", "exposure_id": "x1", "outcome": True},
        "feedback": {
            "feedback_id": "f1",
            "user_id": "u1",
            "event_timestamp": "2026-11-29T10:00:00Z",
            "text": "never any fish, please",
        },
    }
    for table, row in rows.items():
        assert client.post(f"/{table}", json=row).json()["appended"] == 1, table
    (row,) = stored(database, "exposures")
    assert (row["user_id"], row["extra"]) == ("7", {"weather": "rain"})
    assert row["event_timestamp"].hour == 9


def test_the_columns_of_a_new_release_count_from_then_on(client, recorder, tmp_path) -> None:
    shown = {
        "exposure_id": "x1",
        "item_id": "c1",
        "scenario": "campaign",
        "event_timestamp": "2026-11-29T10:00:00Z",
        "mood": "good",
    }
    assert "no such column" in client.post("/exposures", json=shown).json()["error"]
    recorder.follow(release(tmp_path, SOURCE.replace("weather", "mood")))
    assert client.post("/exposures", json=shown).json()["appended"] == 1


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"{", {"content-type": "application/json"}, 400, "the body cannot be read"),
        (b"\xff", {"content-type": "application/json"}, 400, "not UTF-8"),
        (b"[" * 100_000, {"content-type": "application/json"}, 400, "cannot be read"),
        (b"{}", {"content-type": "text/plain"}, 415, "application/x-ndjson"),
        (b"3\n" * (MAX_ROWS + 1), LINES, 413, "at most 10000 a request"),
    ],
)
def test_bodies_that_are_no_rows(client, content, headers, status, said) -> None:
    reply = client.post("/events", content=content, headers=headers)
    assert reply.status_code == status
    assert said in reply.json()["error"]


def test_only_post(client) -> None:
    reply = client.get("/events")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert client.get("/others").status_code == 404


def test_without_a_ledger_or_a_release_nothing_is_acknowledged(tmp_path, url) -> None:
    recorder = Recorder()
    client = TestClient(RecordingMiddleware(Starlette(), recorder))
    reply = client.post("/events", json=event())
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert "RECOMMENDER_LEDGER_URL" in reply.json()["error"]
    recorder.start(url, tmp_path / KEY_FILE)
    assert "nothing is deployed" in client.post("/events", json=event()).json()["error"]
    recorder.start("postgresql+psycopg://nobody@127.0.0.1:1/none", tmp_path / KEY_FILE)
    recorder.follow(release(tmp_path))
    reply = client.post("/events", json=event())
    assert reply.status_code == 503
    assert "send the same rows again" in reply.json()["error"]


def test_the_document_describes_every_column() -> None:
    found = paths()
    assert set(found) == {f"/{name}" for name in RECORDED}
    content = found["/events"]["post"]["requestBody"]["content"]
    row = content["application/json"]["schema"]["oneOf"][0]
    assert row["required"] == ["event_id", "user_id", "event_type", "event_timestamp"]
    assert all(column["description"] for column in row["properties"].values())
