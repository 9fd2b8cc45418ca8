"""The page of the API says what it is, and tells nobody who opened it.

BentoML's page runs Google Tag Manager in the reader's browser and shows badges from other hosts; no setting turns that
off. A Content Security Policy (W3C, "Content Security Policy Level 3") has the browser load nothing from elsewhere,
and the API's description is ours in place of BentoML's.
"""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE, SPECIFICATION = "/", "/docs.json"
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


class PageMiddleware:
    """Answers /docs.json, and has the page load nothing from other hosts; all else passes untouched.

    Args:
        app: what it wraps.
        specification: the service's OpenAPI document.
        info: title, description and version in place of BentoML's.
    """

    def __init__(
        self, app: ASGIApp, specification: Callable[[], dict[str, Any]], info: Mapping[str, str]
    ) -> None:
        self.app, self.specification, self.info = app, specification, info

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        path = scope.get("path")
        if path == SPECIFICATION:
            await JSONResponse({**self.specification(), "info": dict(self.info)})(scope, receive, send)
        elif path == PAGE:
            await self.app(scope, receive, self._guarded(send))
        else:
            await self.app(scope, receive, send)

    def _guarded(self, send: Send) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        return guarded
