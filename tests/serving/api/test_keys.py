"""Keys of the API: who is served without one, what each opens, and that none is kept as it is."""

import time

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from expectations.errors import SettingError
from serving.api.keys import READ, WRITE, KeyFile, KeyMiddleware, new_key, read_keys, revoke_key

HERE, ELSEWHERE = "http://127.0.0.1:3001", "http://192.0.2.7:3001"


@pytest.fixture(name="file")
def _file(tmp_path):
    return tmp_path / "api_keys.json"


@pytest.fixture(name="client")
def _client(file):
    keys = KeyFile()
    keys.start(file)
    names = ("recommend", "events", "healthz")
    app = Starlette(routes=[Route(f"/{name}", lambda _: JSONResponse({})) for name in names])
    guarded = KeyMiddleware(app, needed={"/recommend": READ, "/events": WRITE}, keys=keys)

    def get(path: str, key: str | None = None, host: str = HERE) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        reply = TestClient(guarded, base_url=host).get(path, headers=headers)
        return reply.status_code, reply.json().get("error", "")

    return get


@pytest.mark.parametrize("host", [HERE, "http://[::1]:3001", "http://localhost"])
def test_without_keys_this_machine_is_served(client, host) -> None:
    assert client("/recommend", host=host) == (200, "")
    assert client("/events", host=host) == (200, "")


def test_without_keys_nobody_else_is(client) -> None:
    status, error = client("/events", host=ELSEWHERE)
    assert status == 401
    assert "keys new NAME --scope write" in error
    assert client("/recommend/", host=ELSEWHERE)[0] == 401
    assert client("/healthz", host=ELSEWHERE)[0] == 200


@pytest.mark.parametrize("host", [HERE, ELSEWHERE])
def test_a_key_opens_its_scope_and_everybody_needs_one(client, file, host) -> None:
    assert client("/events")[0] == 200
    till, all_of_it = new_key(file, "till", [WRITE]), new_key(file, "me", ["admin"])
    assert client("/events", till, host)[0] == 200
    status, error = client("/recommend", till, host)
    assert (status, error) == (403, "the key of till opens write; this needs read")
    assert client("/recommend", all_of_it, host)[0] == client("/events", all_of_it, host)[0] == 200
    assert client("/events", host=host)[0] == client("/events", till[:-1], host)[0] == 401
    assert client("/healthz", host=host)[0] == 200


def test_a_revoked_key_opens_nothing_from_the_next_request_on(client, file) -> None:
    secret, _ = new_key(file, "till", [WRITE]), new_key(file, "other", [READ])
    assert client("/events", secret)[0] == 200
    time.sleep(0.01)
    revoke_key(file, "till")
    assert client("/events", secret)[0] == 401


def test_the_file_has_no_key(file) -> None:
    secret = new_key(file, "till", [WRITE])
    assert len(secret) >= 43
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [key.name for key in read_keys(file)] == ["till"]


def test_names_are_unique_and_known(file) -> None:
    new_key(file, "till", [WRITE])
    with pytest.raises(SettingError, match="revoke it first"):
        new_key(file, "till", [READ])
    with pytest.raises(SettingError, match="there are till"):
        revoke_key(file, "web")


def test_a_broken_file_opens_nothing(client, file) -> None:
    file.write_text("{")
    status, error = client("/recommend")
    assert status == 503
    assert "remove it" in error
