"""Values of shoppers as they are told outside the home's own files: as a keyed hash.

The same value is told alike each time, so that a report can be followed up in the quarantine by who has the key.
"""

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from expectations.errors import ImplementationError
from expectations.storage.atomic import write_text

KEY_FILE = "mask.key"
"""Where the key is, in the home's folder."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Hides values by a key; without one it tells them as they are."""

    key: str = field(default="", repr=False)

    def __call__(self, column: str, value: object) -> str:
        """A value as it may be told, such as `user_id#5f2c90ab`."""
        if not self.key:
            return str(value)
        digest = hashlib.blake2b(str(value).encode(), key=self.key.encode(), digest_size=4)
        return f"{column}#{digest.hexdigest()}"

    def user_hash(self, user_id: str) -> str:
        """What stands for a shopper in lists of the erased: long enough that no other shopper has the same.

        Raises:
            ImplementationError: there is no key; the hash of an id that can be guessed would tell the id.
        """
        if not self.key:
            raise ImplementationError("a shopper's hash needs a key; report this mistake")
        return hashlib.blake2b(user_id.encode(), key=self.key.encode(), digest_size=16).hexdigest()


OPEN = Mask()
"""Hides nothing: for what stays on the screen of whoever holds the data."""


def read_mask(path: Path) -> Mask:
    """The mask whose key that file holds; the file is made where it is missing."""
    if not path.exists():
        write_text(path, secrets.token_hex(16) + "\n")
    return Mask(key=path.read_text(encoding="utf-8").strip())
