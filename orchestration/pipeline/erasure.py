"""Erasing a shopper: from the ledger, from every copy in the home, and from what comes in from then on.

First the shopper is put on the lists of the erased, the home's and the ledger's, so that no row of theirs comes in
while the rest is removed. An erasure that was interrupted is done again: each of its steps can be.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from expectations.contracts.ledger import ledger_contracts
from expectations.errors import RequestError, TransientError
from expectations.storage.atomic import write_json
from expectations.storage.erasures import add_erased
from expectations.storage.masking import read_mask
from orchestration.home import Home
from orchestration.pipeline.copies import remove_copies
from serving.ledger.ledger import open_ledger

REMAINS = (
    "models that learned from the shopper's rows hold no id; the next training leaves the rows out",
    "the API holds what it loaded in memory until it is started again or the next deployment",
    "PostgreSQL overwrites the pages and the write-ahead log of deleted rows in its own time",
)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What an erasure came to.

    Attributes:
        path: its file.
        ledger: table of the ledger -> rows removed.
        files: folder or file below the home -> rows removed.
        dropped: folders that are gone as a whole, and made again by the next run.
    """

    path: Path
    ledger: Mapping[str, int]
    files: Mapping[str, int]
    dropped: tuple[str, ...]

    def text(self) -> str:
        """It for people, in a few lines."""
        parts = [f"  {rows:>10,}  ledger: {name}" for name, rows in self.ledger.items() if rows]
        parts += [f"  {rows:>10,}  {name}" for name, rows in self.files.items()]
        parts += [f"     dropped  {name}" for name in self.dropped]
        rest = [f"note: {note}" for note in REMAINS]
        return "\n".join([*(parts or ["  nothing was found"]), f"receipt: {self.path}", *rest])


def erase(home: Home, ledger_url: str, user_id: str) -> Receipt:
    """Erase a shopper, and write a receipt that does not say who it was.

    Args:
        home: the home.
        ledger_url: the ledger's database; has a password.
        user_id: the shopper.

    Raises:
        RequestError: the id is empty.
        TransientError: an ingestion or another erasure is running, or the ledger's database does not answer; erase
            again then.
        SettingError: the list of the erased was made with another key.
    """
    if not user_id.strip():
        raise RequestError("the shopper's id is empty; give the user_id of their rows")
    began = datetime.now(UTC)
    mask = read_mask(home.mask_key)
    with _alone(home), open_ledger(ledger_url, ledger_contracts({}), mask=mask) as ledger:
        hashed = add_erased(home.erasures, mask, user_id, began.isoformat())
        rows = Counter(ledger.erase(user_id))  # from here on, nobody appends a row of theirs
        copies = remove_copies(home, user_id)
        # outcomes may name an exposure of the shop's files, and no shopper
        rows.update(ledger.erase(user_id, sorted(copies.exposure_ids)))
        ledger.vacuum()
    stamp = re.sub(r"\W", "", began.isoformat(timespec="seconds"))
    receipt = Receipt(
        path=home.erasures / f"{stamp}-{hashed[:8]}.json",
        ledger=rows,
        files=copies.rows,
        dropped=tuple(copies.dropped),
    )
    content = {
        "user": hashed,
        "began": began.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "ledger": dict(receipt.ledger),
        "files": dict(receipt.files),
        "dropped": list(receipt.dropped),
        "remains": list(REMAINS),
    }
    write_json(receipt.path, content)
    return receipt


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold the locks of other erasures and of every source's ingestion."""
    home.erasures.mkdir(parents=True, exist_ok=True)
    sources = [path for path in sorted(home.tables.glob("*")) if path.is_dir()]
    with ExitStack() as stack:
        for folder in (home.erasures, *sources):
            try:
                stack.enter_context(FileLock(folder / ".lock").acquire(timeout=0))
            except Timeout:
                what = "another erasure" if folder == home.erasures else "an ingestion"
                raise TransientError(
                    f"{what} is writing to {folder}; erase again when it has ended"
                ) from None
        yield
