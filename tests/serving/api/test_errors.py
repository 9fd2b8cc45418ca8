"""Errors come in one shape, whatever BentoML made of them; all else passes untouched."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.api.errors import ErrorMiddleware


def ask(reply) -> httpx.Response:
    app = ErrorMiddleware(Starlette(routes=[Route("/", lambda _: reply)]), fields={"/": ("user_id", "k")})
    return TestClient(app).get("/")


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ({"type": "extra_forbidden", "loc": ["kk"], "msg": "no"}, "unknown field 'kk'; known: user_id, k"),
        ({"type": "missing", "loc": ["user_id"], "msg": "no"}, "field 'user_id' is missing; give it"),
        ({"type": "greater", "loc": ["a", 0], "msg": "too small"}, "a.0: too small"),
        ({"type": "json_invalid", "loc": [], "msg": "Invalid JSON: EOF"}, "the body is not JSON: EOF"),
        ({"type": "model_type", "loc": [], "msg": "a list"}, "the body: a list; send a JSON object"),
    ],
)
def test_details_become_a_sentence(detail, said) -> None:
    reply = ask(JSONResponse({"error": "1 validation error", "detail": [detail]}, status_code=400))
    assert (reply.status_code, reply.json()) == (400, {"error": said})


def test_lists_and_plain_text_become_an_error() -> None:
    assert ask(JSONResponse([{"error": "bad"}], status_code=415)).json() == {"error": "bad"}
    assert ask(PlainTextResponse("not ready", status_code=503)).json() == {"error": "not ready"}


def test_success_passes_untouched() -> None:
    assert ask(JSONResponse([1, 2])).json() == [1, 2]
    assert ask(StreamingResponse(iter([b"a", b"b"]))).content == b"ab"
