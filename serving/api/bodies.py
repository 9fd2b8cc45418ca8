"""Bodies as clients send them: packed by gzip, begun with a byte order mark, and never larger than MAX_BYTES.

By hand: starlette packs replies and unpacks no request, and a limit must hold for what is unpacked, too.
"""

import zlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 8 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = 16 + zlib.MAX_WBITS


class UnfitBodyError(ValueError):
    """A body that is not read; with the status and the sentence of the reply."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


class BodyMiddleware:
    """Reads the body of a POST whole and hands it on unpacked; all else passes untouched.

    Args:
        app: what it wraps.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            body = _unpacked(await _read(receive), headers.get("content-encoding", ""))
        except UnfitBodyError as error:
            reply = JSONResponse({"error": str(error)}, error.status)
            await reply(scope, receive, send)
            return
        scope = {**scope, "headers": list(scope["headers"])}
        changed = MutableHeaders(scope=scope)
        del changed["content-encoding"], changed["transfer-encoding"]
        changed["content-length"] = str(len(body))
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def read() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, read, send)


async def _read(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise _too_large()
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("gzip", "x-gzip"):
        inflate = zlib.decompressobj(_GZIP)
        try:
            body = inflate.decompress(body, MAX_BYTES + 1)
        except zlib.error as error:
            raise UnfitBodyError(400, f"the body is no gzip ({error}); correct content-encoding") from None
        if len(body) > MAX_BYTES:
            raise _too_large()
        if not inflate.eof:
            raise UnfitBodyError(400, "the body is a gzip without its end; send it again")
    elif encoding not in ("", "identity"):
        raise UnfitBodyError(
            415, f"content-encoding is {encoding[:40]!r}; send the body as it is, or by gzip"
        )
    return body.removeprefix(BYTE_ORDER_MARK)


def _too_large() -> UnfitBodyError:
    return UnfitBodyError(413, f"the body has more than {MAX_BYTES >> 20} MiB; send it in several requests")
