"""What happened, told over HTTP: POST /events, /exposures, /outcomes and /feedback append to the ledger.

A body is one row as a JSON object, a list of rows, or a row a line (NDJSON). Each row is judged by itself, by the
contract of its table: what breaks it is told with its reason and goes to quarantine, the others are committed
before the reply is sent. The same row sent again is appended once.
"""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from expectations.contracts.ledger import LEDGER_TABLES, URL_VARIABLE, ledger_contracts
from expectations.contracts.schema import ColumnType, Table
from expectations.contracts.source import read_source
from expectations.errors import ServiceError, TransientError
from expectations.storage.masking import read_mask
from serving.api.metrics import metrics
from serving.ledger.appending import RowResult
from serving.ledger.deciding import DecidedBefore, DecisionTransaction
from serving.ledger.ledger import Ledger, open_ledger
from serving.release.release import Release

RECORDED = ("events", "exposures", "outcomes", "feedback")
MAX_ROWS = 10_000
RETRY_SECONDS = 5
JSON_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
JSON = "application/json"

_JSON_TYPES: Mapping[ColumnType, Mapping[str, Any]] = {
    "string": {"type": "string"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "timestamp": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
}


class Recorder:
    """The ledger, by the contracts of the release that serves; of use to several threads at once.

    It is opened by the first row: a database that is not there yet stops no release from serving. One for contracts
    that are no longer in force stays open until `stop`, as a request may be in it.
    """

    def __init__(self) -> None:
        self._url, self._mask_key = "", Path()
        self._contracts: Mapping[str, Table] | None = None
        self._opened: tuple[Mapping[str, Table], Ledger] | None = None
        self._alone = threading.Lock()
        self._open = contextlib.ExitStack()

    def start(self, url: str, mask_key: Path) -> None:
        """Take the ledger's URL, empty where there is none, and the file of the mask's key."""
        self._url, self._mask_key = url, mask_key

    def follow(self, release: Release) -> None:
        """Check rows by the contracts of this release from now on."""
        self._contracts = ledger_contracts(read_source(release.source).contracts())

    def stop(self) -> None:
        """Close what was opened."""
        with self._alone:
            self._opened = None
            self._open.close()

    def append(self, table: str, rows: Sequence[Any]) -> list[RowResult]:
        """Append rows, and say what became of each.

        Raises:
            ServiceError: there is no ledger, or nothing is deployed yet.
            TransientError: the database does not answer.
        """
        return self._ledger().append(table, rows)

    def decided(self, decision_id: str) -> DecidedBefore | None:
        """What was decided before under an id; raises as `append` does."""
        return self._ledger().decided(decision_id)

    def deciding(self, user_id: str) -> AbstractContextManager[DecisionTransaction]:
        """A transaction in which a shopper's request is decided; raises as `append` does."""
        return self._ledger().deciding(user_id)

    def _ledger(self) -> Ledger:
        contracts = self._contracts
        if not self._url:
            raise ServiceError(
                f"the API was started without a ledger; set {URL_VARIABLE} to its database's URL"
            )
        if contracts is None:
            raise ServiceError(
                "nothing is deployed, so what a row may hold is not known yet; run the pipeline (make run)"
            )
        with self._alone:
            if self._opened is None or self._opened[0] != contracts:
                opened = open_ledger(self._url, contracts, mask=read_mask(self._mask_key))
                self._opened = contracts, self._open.enter_context(opened)
            return self._opened[1]


class RecordingMiddleware:
    """Answers the paths of RECORDED; all else passes untouched.

    Args:
        app: what it wraps.
        recorder: appends.
    """

    def __init__(self, app: ASGIApp, recorder: Recorder) -> None:
        self.app, self.recorder = app, recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        table = scope.get("path", "")[1:]
        if scope["type"] != "http" or table not in RECORDED:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.method != "POST":
            headers = {"allow": "POST"}
            reply = JSONResponse({"error": f"/{table} takes POST, not {request.method}"}, 405, headers)
        elif kind not in (JSON, *JSON_LINES):  # nor may a page of another host send here, unasked
            error = f"content-type is {kind[:60]!r}; send {JSON}, or {JSON_LINES[0]} with a row a line"
            reply = JSONResponse({"error": error}, 415)
        else:
            reply = await run_in_threadpool(self._reply, table, await request.body(), kind)
        await reply(scope, receive, send)

    def _reply(self, table: str, body: bytes, kind: str) -> JSONResponse:
        try:
            rows, single = _rows(body, kind)
        except (ValueError, RecursionError) as error:
            return JSONResponse({"error": f"the body cannot be read: {error}"}, 400)
        if len(rows) > MAX_ROWS:
            said = f"the body has {len(rows)} rows; send at most {MAX_ROWS} a request"
            return JSONResponse({"error": said}, 413)
        try:
            results = self.recorder.append(table, rows)
        except (ServiceError, TransientError) as failure:
            metrics().rows_recorded(table, {"failed": len(rows)})
            return JSONResponse({"error": str(failure)}, 503, {"retry-after": str(RETRY_SECONDS)})
        counts = Counter[str](result.status for result in results)
        metrics().rows_recorded(table, counts)
        refused = [
            {"row": number, **asdict(result)}
            for number, result in enumerate(results, start=1)
            if result.status not in ("appended", "unchanged")
        ]
        told = {"appended": counts["appended"], "unchanged": counts["unchanged"], "refused": refused}
        if not single or not refused:
            return JSONResponse(told)
        conflict = results[0].status == "conflict"
        return JSONResponse({"error": results[0].reason, **told}, 409 if conflict else 400)


def _rows(body: bytes, kind: str) -> tuple[list[Any], bool]:
    """The rows of a body, and whether it is one that stands alone.

    Raises:
        ValueError: it is no JSON. A line of NDJSON that is none is a row that breaks its contract.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ValueError("its bytes are not UTF-8") from None
    if kind in JSON_LINES:
        return [_line(line) for line in text.splitlines() if line.strip()], False
    found = json.loads(text)
    return (found, False) if isinstance(found, list) else ([found], True)


def _line(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def paths() -> dict[str, Any]:
    """These paths in the OpenAPI document, their rows as the contracts describe them."""
    return {f"/{name}": {"post": _operation(name, LEDGER_TABLES[name])} for name in RECORDED}


def _operation(name: str, table: Table) -> dict[str, Any]:
    row = {
        "type": "object",
        "properties": {
            column.name: {
                **_JSON_TYPES[column.type],
                "description": column.description,
                **({"enum": list(column.allowed)} if column.allowed else {}),
            }
            for column in table.columns
        },
        "required": [column.name for column in table.columns if column.required],
    }
    one_or_many = {"schema": {"oneOf": [row, {"type": "array", "items": row, "maxItems": MAX_ROWS}]}}
    lines = {"schema": {"type": "string", "description": "a row a line"}}
    replies = {
        "200": "what became of the rows: how many were appended, how many were there before, which were refused",
        "400": "the row breaks its contract, or the body is no JSON",
        "409": "the row's id was recorded before with other content",
        "503": "nothing was recorded: send the same rows again",
    }
    return {
        "summary": f"Record {name}, {table.grain}",
        "tags": ["Ledger"],
        "requestBody": {"required": True, "content": {JSON: one_or_many, JSON_LINES[0]: lines}},
        "responses": {status: {"description": text} for status, text in replies.items()},
    }
