"""What served and what is pinned: two files beside the deployment's pointer.

history.jsonl   a HistoryEntry a line, the oldest first; only ever appended to
pin.json        the Pin, while one stands
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from expectations.errors import RecommenderError, SettingError
from expectations.storage.atomic import read_json, write_json

HISTORY, PIN = "history.jsonl", "pin.json"

Action = Literal["deploy", "refresh", "rollback", "pin", "unpin"]


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One change of what serves.

    Attributes:
        time: ISO 8601, UTC.
        action: `refresh` is the same model with newer features.
        release, bundle, project: as in the pointer, of what served after it.
        who, reason: of a rollback, pin or unpin: the user's name, and what they gave as the reason.
    """

    time: str
    action: Action
    release: str
    bundle: str
    project: str
    who: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What keeps a model in service: while it stands, no other one is deployed.

    Attributes:
        bundle: hash of the bundle.
        reason: why, in the words of who set it; may be empty.
        who: name of the user who set it.
        when: ISO 8601, UTC.
    """

    bundle: str
    reason: str
    who: str
    when: str

    def text(self, waiting: str | None = None) -> str:
        """What the pin does, in a sentence; `waiting` is the hash of an approved bundle that it keeps out."""
        why = f": {self.reason}" if self.reason else ""
        waits = f"; approved model {waiting[:12]} waits" if waiting else ""
        return (
            f"model {self.bundle[:12]} is pinned since {self.when[:16]} by {self.who}{why}{waits}; "
            "`python -m orchestration unpin` lifts the pin"
        )


def read_pin(folder: Path) -> Pin | None:
    """The pin of a deployment's folder; None where none stands.

    Raises:
        SettingError: the file is not a pin.
    """
    path = folder / PIN
    if not path.exists():
        return None
    try:
        return Pin(**read_json(path))
    except (TypeError, RecommenderError) as error:
        raise SettingError(f"{path} is not a pin ({error}); unpin, or pin again by a rollback") from error


def write_pin(folder: Path, pin: Pin) -> None:
    """Set the pin, atomically, in the place of the one before."""
    write_json(folder / PIN, asdict(pin))


def append_history(folder: Path, entry: HistoryEntry) -> None:
    """Add a line."""
    line = json.dumps({name: value for name, value in asdict(entry).items() if value}, ensure_ascii=False)
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_history(folder: Path) -> list[HistoryEntry]:
    """All entries, the oldest first. A line that cannot be read, such as a torn one, is left out."""
    path, entries = folder / HISTORY, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entries.append(HistoryEntry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return entries


def latest_by_bundle(entries: Sequence[HistoryEntry]) -> dict[str, HistoryEntry]:
    """The last entry of each bundle, by its hash, the latest first."""
    latest: dict[str, HistoryEntry] = {}
    for entry in reversed(entries):
        latest.setdefault(entry.bundle, entry)
    return latest
