"""Where everything that runs make is kept: the layout of RECOMMENDER_HOME.

.recommender/
├── tables/<source>/<table>/       landed tables, datasets of `expectations.storage.datasets`
├── checked/<source>/<table>/      the rows that passed their contract
├── quarantine/<source>/<table>/   the rows that did not
├── features/<source>/…            feature tables
├── examples/<source>/             training examples
├── training/<source>/             checkpoints, TensorBoard
├── recipes/<source>.toml          the best recipe of a search
├── bundles/<hash>/                trained models
├── evaluations/<hash>.json        metrics on the test part
├── gate_decisions/<hash>.json     whether a bundle may serve, rule by rule
├── deployment/current.json        the model that serves
├── bentoml/ gx/ postgres/ dagster/
├── logs/                          of services, runs and steps
└── reports/latest.json            what the last run came to
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "RECOMMENDER_HOME"
DEFAULT = ".recommender"


@dataclass(frozen=True, kw_only=True)
class Home:
    """The paths under one home folder. Nothing is created by asking for a path.

    Attributes:
        root: the home folder, absolute.
    """

    root: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Home":
        """The home that RECOMMENDER_HOME names, or `.recommender` under the current folder."""
        return cls(root=Path(environ.get(VARIABLE) or DEFAULT).expanduser().absolute())

    @property
    def tables(self) -> Path:
        """Landed tables: `<source>/<table>/`."""
        return self.root / "tables"

    @property
    def checked(self) -> Path:
        """Rows that passed their contract: `<source>/<table>/`."""
        return self.root / "checked"

    @property
    def quarantine(self) -> Path:
        """Rows that broke their contract: `<source>/<table>/`."""
        return self.root / "quarantine"

    @property
    def features(self) -> Path:
        """Feature tables: `<source>/…`."""
        return self.root / "features"

    @property
    def examples(self) -> Path:
        """Training examples: `<source>/`."""
        return self.root / "examples"

    @property
    def training(self) -> Path:
        """Checkpoints and TensorBoard files: `<source>/`."""
        return self.root / "training"

    @property
    def recipes(self) -> Path:
        """The best recipe of a search: `<source>.toml`."""
        return self.root / "recipes"

    @property
    def bundles(self) -> Path:
        """Trained models: `<hash>/`."""
        return self.root / "bundles"

    @property
    def evaluations(self) -> Path:
        """Metrics on the test part: `<hash>.json`."""
        return self.root / "evaluations"

    @property
    def gate_decisions(self) -> Path:
        """The gate's decisions: `<hash>.json`."""
        return self.root / "gate_decisions"

    @property
    def deployment(self) -> Path:
        """The pointer file to the model that serves."""
        return self.root / "deployment" / "current.json"

    @property
    def bentoml(self) -> Path:
        """BentoML's own store (BENTOML_HOME)."""
        return self.root / "bentoml"

    @property
    def gx(self) -> Path:
        """Great Expectations' results and data docs."""
        return self.root / "gx"

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL: data, password, locks."""
        return self.root / "postgres"

    @property
    def dagster(self) -> Path:
        """Dagster's own folder (DAGSTER_HOME)."""
        return self.root / "dagster"

    @property
    def logs(self) -> Path:
        """Logs and process files of services, logs of runs and steps."""
        return self.root / "logs"

    @property
    def report(self) -> Path:
        """What the last run came to, JSON."""
        return self.root / "reports" / "latest.json"
