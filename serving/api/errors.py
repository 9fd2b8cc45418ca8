"""One shape for every error: {"error": "what is wrong and what to do"}.

BentoML answers a request that does not fit the schema with pydantic's list of details, and some of its own
errors inside a list; it has no handler to replace. This middleware puts them into one sentence; other replies
pass untouched.
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

FIRST_ERROR = 400


class ErrorMiddleware(BaseHTTPMiddleware):
    """Rewrites the bodies of replies from status 400 on.

    Args:
        app: what it wraps.
        fields: names that a request may have, to name where another was given.
    """

    def __init__(self, app: ASGIApp, fields: tuple[str, ...] = ()) -> None:
        super().__init__(app)
        self.fields = fields

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """Pass a request on, and its reply back."""
        reply = await call_next(request)
        if reply.status_code < FIRST_ERROR:
            return reply  # type: ignore[no-any-return]
        body = b"".join([part async for part in reply.body_iterator])
        headers = {k: v for k, v in reply.headers.items() if k not in ("content-length", "content-type")}
        return JSONResponse(self._error(body), status_code=reply.status_code, headers=headers)

    def _error(self, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except ValueError:
            return {"error": body.decode(errors="replace").strip()}
        if isinstance(found, list) and found:
            found = found[0]
        if not isinstance(found, dict):
            return {"error": str(found)}
        details = found.get("detail")
        if isinstance(details, list) and details:
            return {"error": "; ".join(map(self._detail_text, details))}
        return found

    def _detail_text(self, detail: Mapping[str, Any]) -> str:
        where = ".".join(str(part) for part in detail.get("loc", ()))
        kind, message = detail.get("type"), str(detail.get("msg", "")).removeprefix("Value error, ")
        if kind == "extra_forbidden":
            return f"unknown field {where!r}; known: {', '.join(self.fields)}"
        if kind == "missing":
            return f"field {where!r} is missing; give it"
        if kind == "json_invalid":
            return f"the body is not JSON: {message.removeprefix('Invalid JSON: ')}"
        return f"{where}: {message}" if where else f"the body: {message}; send a JSON object"
