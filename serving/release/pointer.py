"""The deployment's pointer: one small JSON file that says which model serves, and from what.

deployment/
├── current.json             the DeploymentPointer that every worker of the service follows
├── previous.json            the one before, for `rollback`
├── sources/<hash>.toml      the source declarations that pointers name
└── feature_rows/<version>/  the feature rows that serving reads, linked so that they stay

It is replaced atomically, after everything that it names is in place.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from expectations.errors import RecommenderError, SettingError
from expectations.storage.atomic import read_json, write_json

CURRENT, PREVIOUS = "current.json", "previous.json"


@dataclass(frozen=True, kw_only=True)
class DeploymentPointer:
    """Which model serves.

    Attributes:
        bundle: hash of the bundle.
        model: absolute path of the bundle inside BentoML's model store.
        model_tag, bento_tag: their tags in BentoML's stores.
        source: absolute path of the copy of the source's declaration.
        project: name of the Feast project.
        online_store: absolute path of Feast's SQLite online store.
        feature_rows: absolute path of the links to the feature rows' files.
        horizon: naive UTC, ISO 8601: the time up to which the data reach.
        clock: the time of a request that names none: "now", or "data" for the horizon.
        deployed_at: ISO 8601, UTC.
    """

    bundle: str
    model: str
    model_tag: str
    bento_tag: str
    source: str
    project: str
    online_store: str
    feature_rows: str
    horizon: str
    clock: Literal["now", "data"]
    deployed_at: str

    @classmethod
    def read(cls, path: Path) -> "DeploymentPointer | None":
        """Read a pointer file; None where there is none.

        Raises:
            SettingError: the file is not a pointer.
        """
        if not path.exists():
            return None
        try:
            values: Mapping[str, Any] = read_json(path)
            pointer = cls(**values)
            datetime.fromisoformat(pointer.horizon)
        except (TypeError, ValueError, RecommenderError) as error:
            raise SettingError(f"{path} is not a deployment pointer ({error}); deploy again") from error
        return pointer

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, asdict(self))
