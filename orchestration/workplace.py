"""What every asset works on: one home, one source, one Feast registry. A Dagster resource."""

from pathlib import Path

import dagster as dg

from expectations.contracts.source import Source, read_source
from features.retrieval import StoreSettings
from orchestration.home import DEFAULT, Home
from orchestration.instance import COMPLETE_JOURNEY


class Workplace(dg.ConfigurableResource):
    """Where a run reads and writes.

    Attributes:
        home: the home folder.
        source: path of the `source.toml`.
        registry_url: database of the Feast registry; has a password.
        recipe: path of a training recipe; empty: the packaged one.
        gate_rules: path of the gate's rules; empty: the packaged ones.
        ui: address of Dagster's UI, for links in alerts.
    """

    home: str = DEFAULT
    source: str = str(COMPLETE_JOURNEY)
    registry_url: str = ""
    recipe: str = ""
    gate_rules: str = ""
    ui: str = "http://127.0.0.1:3000"

    @property
    def place(self) -> Home:
        """The home's paths."""
        return Home(root=Path(self.home).expanduser().absolute())

    @property
    def source_path(self) -> Path:
        """The declaration's file."""
        return Path(self.source).expanduser().absolute()

    def declaration(self) -> Source:
        """The source, read now.

        Raises:
            SettingError: it cannot be read.
        """
        return read_source(self.source_path)

    def store_settings(self) -> StoreSettings:
        """Where the source's Feast store is."""
        name = self.declaration().name
        return StoreSettings(
            project=name,
            registry_url=self.registry_url,
            online_path=self.place.features / name / "online.db",
        )
