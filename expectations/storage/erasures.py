"""Who was erased: a list of keyed hashes, so that what a shop still has in its files is left out from then on.

    <home>/erasures/
    ├── erased.json              {"check": …, "users": {keyed hash: when}}
    └── <time>-<hash>.json       a receipt of each erasure, without the id

The hashes are of `mask.key`. Another key would let everybody in again, so `check` tells whether it is still the one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from expectations.errors import SettingError
from expectations.storage.atomic import read_json, write_json
from expectations.storage.masking import OPEN, Mask

ERASED = "erased.json"
_CHECK = "recommender"


@dataclass(frozen=True, kw_only=True)
class Erased:
    """The shoppers who were erased.

    Attributes:
        mask: has the key of the hashes.
        users: keyed hash -> when, ISO 8601.
    """

    mask: Mask = OPEN
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __contains__(self, user_id: object) -> bool:
        return bool(self.users) and self.mask.user_hash(str(user_id)) in self.users

    def among(self, values: Iterable[object]) -> list[object]:
        """Those of some values that are the id of an erased shopper."""
        return [value for value in values if value in self]


NOBODY = Erased()


def read_erased(folder: Path, mask: Mask) -> Erased:
    """The erased shoppers of a home's `erasures` folder; nobody where there is no list.

    Raises:
        SettingError: the list was made with another key.
    """
    path = folder / ERASED
    if not path.exists():
        return NOBODY
    found = read_json(path)
    if found["check"] != mask.user_hash(_CHECK):
        raise SettingError(
            f"{path} was made with another key than mask.key in RECOMMENDER_HOME; put that key back, or erased "
            "shoppers come back with the shop's files"
        )
    return Erased(mask=mask, users=MappingProxyType(found["users"]))


def add_erased(folder: Path, mask: Mask, user_id: str, when: str) -> str:
    """Put a shopper on the list; the keyed hash.

    Raises:
        SettingError: the list was made with another key.
    """
    hashed = mask.user_hash(user_id)
    users = {**read_erased(folder, mask).users, hashed: when}
    write_json(folder / ERASED, {"check": mask.user_hash(_CHECK), "users": users})
    return hashed
