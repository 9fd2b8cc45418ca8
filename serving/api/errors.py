"""One shape for every error: {"error": "what is wrong and what to do"}.

BentoML answers a request that does not fit the schema with pydantic's list of details, and some of its own
errors inside a list. This middleware puts them into one sentence; other replies pass untouched.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FIRST_ERROR = 400


class ErrorMiddleware:
    """ASGI middleware.

    Args:
        app: what it wraps.
        fields: names that a request may have, to name where another was given.
    """

    def __init__(self, app: App, fields: tuple[str, ...] = ()) -> None:
        self.app, self.fields = app, fields

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, and its reply back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held: list[Message] = []

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= FIRST_ERROR:
                held.append(message)
            elif not held:
                await send(message)
            else:
                held.append(message)
                if not message.get("more_body"):
                    await self._reply(held, send)

        await self.app(scope, receive, pass_on)

    async def _reply(self, held: list[Message], send: Send) -> None:
        start, body = held[0], b"".join(message.get("body", b"") for message in held[1:])
        body = self._error_body(body)
        headers = [(k, v) for k, v in start["headers"] if k not in (b"content-length", b"content-type")]
        headers += [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _error_body(self, body: bytes) -> bytes:
        try:
            found = json.loads(body)
        except ValueError:
            found = {"error": body.decode(errors="replace").strip()}
        if isinstance(found, list) and found:
            found = found[0]
        if not isinstance(found, dict):
            found = {"error": str(found)}
        detail = found.get("detail")
        if isinstance(detail, list) and detail:
            found = {"error": "; ".join(self._detail_text(part) for part in detail)}
        return json.dumps(found, ensure_ascii=False).encode()

    def _detail_text(self, detail: Mapping[str, Any]) -> str:
        where = ".".join(str(part) for part in detail.get("loc", ()))
        kind, message = detail.get("type"), str(detail.get("msg", "")).removeprefix("Value error, ")
        if kind == "extra_forbidden":
            return f"unknown field {where!r}; known: {', '.join(self.fields)}"
        if kind == "missing":
            return f"field {where!r} is missing; give it"
        if kind == "json_invalid":
            return f"the body is not JSON: {message.removeprefix('Invalid JSON: ')}"
        if not where:
            return f"the body: {message}; send a JSON object"
        return f"{where}: {message}"
