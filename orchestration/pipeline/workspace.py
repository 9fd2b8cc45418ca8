"""What every step works on: one home, one source."""

from dataclasses import dataclass
from pathlib import Path

from expectations.contracts.source import Source, read_source
from expectations.storage.masking import Mask, read_mask
from orchestration.home import Home


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a run reads and writes.

    Attributes:
        home: the home folder's paths.
        source_path: the `source.toml`.
        recipe: a training recipe; None: the packaged one.
        gate_rules: the gate's rules; None: the packaged ones.
        memory: what DuckDB may use in a step, such as "6GB"; None: its own limit.
        retention_days: how long the ledger keeps its rows, items apart; None: for ever.
    """

    home: Home
    source_path: Path
    recipe: Path | None = None
    gate_rules: Path | None = None
    memory: str | None = None
    retention_days: int | None = None

    def source(self) -> Source:
        """The shop's declaration, read now.

        Raises:
            SettingError: it cannot be read.
        """
        return read_source(self.source_path)

    def mask(self) -> Mask:
        """What hides shoppers' values in everything that leaves the home's own files."""
        return read_mask(self.home.mask_key)
