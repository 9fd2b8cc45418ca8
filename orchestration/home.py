"""Where everything that runs make is kept: the layout of RECOMMENDER_HOME.

.recommender/
├── tables/<source>/<table>/       landed tables, datasets of `expectations.storage.datasets`
├── checked/<source>/<table>/      the rows that passed their contract
├── quarantine/<source>/<table>/   the rows that did not
├── features/<source>/             feature rows, and the Feast stores that are filled from them
├── examples/<source>/             training examples
├── training/<source>/             checkpoints, TensorBoard
├── recipes/<source>.toml          the best recipe of a search
├── bundles/<hash>/                trained models
├── evaluations/<hash>.json        metrics on the test part
├── gate_decisions/<hash>.json     whether a bundle may serve, rule by rule
├── deployment/                    releases, and which of them serves
├── bentoml/                       BentoML's own store (BENTOML_HOME)
├── gx/                            Great Expectations' results and Data Docs
├── postgres/                      the embedded PostgreSQL: data, password, locks
├── erasures/                      who was erased, as keyed hashes, and a receipt of each erasure
├── mask.key                       with which shoppers' values are hidden in metadata and alerts
├── api_keys.json                  hashes of the API's keys, once there are any
├── dagster/                       Dagster's own folder (DAGSTER_HOME)
├── queue/                         the run at work and those that wait
├── supervisor/                    what supervisord keeps running for `up`
├── logs/                          of services, runs and steps
└── reports/latest.json            what the last run came to
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from expectations.storage.masking import KEY_FILE

VARIABLE = "RECOMMENDER_HOME"
DEFAULT = ".recommender"
FILES = {
    "deployment": "deployment/current.json",
    "report": "reports/latest.json",
    "mask_key": KEY_FILE,
    "api_keys": "api_keys.json",
}
"""The attributes that are not named like their folder."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """The paths under one home folder, as the module says. Nothing is created by asking for a path.

    Attributes:
        root: the home folder, absolute.
    """

    root: Path
    tables: Path = field(init=False, repr=False, compare=False)
    checked: Path = field(init=False, repr=False, compare=False)
    quarantine: Path = field(init=False, repr=False, compare=False)
    features: Path = field(init=False, repr=False, compare=False)
    examples: Path = field(init=False, repr=False, compare=False)
    training: Path = field(init=False, repr=False, compare=False)
    recipes: Path = field(init=False, repr=False, compare=False)
    bundles: Path = field(init=False, repr=False, compare=False)
    evaluations: Path = field(init=False, repr=False, compare=False)
    gate_decisions: Path = field(init=False, repr=False, compare=False)
    bentoml: Path = field(init=False, repr=False, compare=False)
    gx: Path = field(init=False, repr=False, compare=False)
    postgres: Path = field(init=False, repr=False, compare=False)
    dagster: Path = field(init=False, repr=False, compare=False)
    queue: Path = field(init=False, repr=False, compare=False)
    supervisor: Path = field(init=False, repr=False, compare=False)
    erasures: Path = field(init=False, repr=False, compare=False)
    logs: Path = field(init=False, repr=False, compare=False)
    deployment: Path = field(init=False, repr=False, compare=False)
    report: Path = field(init=False, repr=False, compare=False)
    mask_key: Path = field(init=False, repr=False, compare=False)
    api_keys: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__.keys() - {"root"}:
            object.__setattr__(self, name, self.root / FILES.get(name, name))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Home":
        """The home that RECOMMENDER_HOME names, or `.recommender` under the current folder."""
        return cls(root=Path(environ.get(VARIABLE) or DEFAULT).expanduser().absolute())
