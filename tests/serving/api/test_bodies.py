"""Bodies as clients send them, through the middleware of the service."""

import gzip
import json

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.api.bodies import BYTE_ORDER_MARK, MAX_BYTES, BodyMiddleware

ROW = {"user_id": "ä1"}
SENT = json.dumps(ROW, ensure_ascii=False).encode()


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse(
        {"row": await request.json(), "length": [request.headers["content-length"], len(body)]}
    )


@pytest.fixture(name="client", scope="module")
def _client():
    app = Starlette(routes=[Route("/", echo, methods=["POST"])])
    return TestClient(BodyMiddleware(app))


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (SENT, {}),
        (BYTE_ORDER_MARK + SENT, {}),
        (gzip.compress(SENT), {"content-encoding": "gzip"}),
        (gzip.compress(BYTE_ORDER_MARK + SENT), {"content-encoding": "gzip"}),
        (iter([SENT[:5], SENT[5:]]), {}),
    ],
)
def test_one_row_in_many_dresses(client, body, headers) -> None:
    reply = client.post("/", content=body, headers=headers)
    assert reply.json() == {"row": ROW, "length": [str(len(SENT)), len(SENT)]}


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b" " * (MAX_BYTES + 1), {}, 413, "8 MiB"),
        (gzip.compress(b" " * (MAX_BYTES + 1)), {"content-encoding": "gzip"}, 413, "8 MiB"),
        (SENT, {"content-encoding": "gzip"}, 400, "no gzip"),
        (gzip.compress(SENT)[:-9], {"content-encoding": "gzip"}, 400, "without its end"),
        (SENT, {"content-encoding": "br"}, 415, "'br'"),
    ],
)
def test_what_cannot_be_read(client, body, headers, status, said) -> None:
    reply = client.post("/", content=body, headers=headers)
    assert reply.status_code == status
    assert said in reply.json()["error"]
