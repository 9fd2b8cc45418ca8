"""Keys of the API: who may read, who may write.

While there is no key, only requests that reach this machine by its loopback address are served. As soon as there is
one, every request needs one, a proxy's on this machine too. The file has no key, but its SHA-256: a key is 256 random
bits, which nobody finds by trying.

<home>/api_keys.json    name, scopes, hash and day of each key
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from expectations.errors import SchemaError, SettingError
from expectations.storage.atomic import read_json, write_json

FILE = "api_keys.json"
READ, WRITE, ADMIN = "read", "write", "admin"
SCOPES = (READ, WRITE, ADMIN)


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it is stored.

    Attributes:
        name: whose it is.
        scopes: what it opens, of SCOPES; `admin` opens all.
        sha256: hash of the key.
        created_at: ISO 8601, UTC.
    """

    name: str
    scopes: Sequence[str]
    sha256: str
    created_at: str


def read_keys(file: Path) -> list[Key]:
    """The keys of a file; none where there is no file.

    Raises:
        SettingError: it cannot be read.
    """
    if not file.exists():
        return []
    try:
        return [Key(**entry) for entry in read_json(file)["keys"]]
    except (TypeError, KeyError, SchemaError) as error:
        raise SettingError(f"{file} holds no keys ({error}); remove it and make new ones") from error


def new_key(file: Path, name: str, scopes: Sequence[str]) -> str:
    """Make a key and keep its hash; the key itself is told once, here.

    Raises:
        SettingError: the name is taken.
    """
    keys = read_keys(file)
    if any(key.name == name for key in keys):
        raise SettingError(f"there is a key of the name {name!r}; revoke it first, or choose another name")
    secret = secrets.token_urlsafe(32)
    made = Key(
        name=name,
        scopes=list(scopes),
        sha256=_hash(secret),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write(file, [*keys, made])
    return secret


def revoke_key(file: Path, name: str) -> None:
    """Let a key open nothing any more.

    Raises:
        SettingError: there is none of that name.
    """
    keys = read_keys(file)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        names = ", ".join(key.name for key in keys)
        raise SettingError(
            f"there is no key of the name {name!r}; " + (f"there are {names}" if names else "there is none")
        )
    _write(file, left)


def _write(file: Path, keys: Sequence[Key]) -> None:
    write_json(file, {"keys": [asdict(key) for key in keys]})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyMiddleware:
    """Refuses requests that lack the key they need.

    Args:
        app: what it wraps.
        needed: path -> scope; other paths are open.
        keys: the keys' file; a change of it counts from the next request on.
    """

    def __init__(self, app: ASGIApp, needed: Mapping[str, str], keys: "KeyFile") -> None:
        self.app, self.needed, self.keys = app, needed, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "").rstrip("/")
        needed = self.needed.get(path) if scope["type"] == "http" else None
        refused = self._refusal(scope, needed) if needed else None
        if refused is None:
            await self.app(scope, receive, send)
        else:
            await refused(scope, receive, send)

    def _refusal(self, scope: Scope, needed: str) -> JSONResponse | None:
        try:
            keys = self.keys.read()
        except SettingError as error:
            return JSONResponse({"error": str(error)}, 503)
        if not keys and _is_loopback(scope):
            return None
        given = Headers(scope=scope).get("authorization", "")
        kind, _, secret = given.partition(" ")
        digest = _hash(secret.strip())
        found = [key for key in keys if hmac.compare_digest(key.sha256, digest)]
        if kind.lower() != "bearer" or not found:
            how = (
                f"make one (python -m orchestration keys new NAME --scope {needed}) and " if not keys else ""
            )
            said = f"this needs a key: {how}send it as `Authorization: Bearer …`"
            return JSONResponse({"error": said}, 401, {"www-authenticate": "Bearer"})
        if not {needed, ADMIN} & set(found[0].scopes):
            scopes = ", ".join(found[0].scopes)
            said = f"the key of {found[0].name} opens {scopes}; this needs {needed}"
            return JSONResponse({"error": said}, 403)
        return None


class KeyFile:
    """The keys of a home, read again when their file changes."""

    def __init__(self) -> None:
        self._file, self._seen, self._keys = Path(FILE), (0, 0), list[Key]()

    def start(self, file: Path) -> None:
        """Take the path of the file."""
        self._file, self._seen, self._keys = file, (0, 0), []

    def read(self) -> list[Key]:
        """The keys.

        Raises:
            SettingError: the file cannot be read.
        """
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return []
        seen = status.st_mtime_ns, status.st_ino
        if seen != self._seen:
            self._keys, self._seen = read_keys(self._file), seen
        return self._keys


def _is_loopback(scope: Scope) -> bool:
    """Whether a request came to an address of this machine's own, or by a socket in its file system."""
    host, port = scope.get("server") or ("", 0)
    if port is None:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
