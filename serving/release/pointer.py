"""The pointer of a deployment, `current.json`: what serves, as every worker of the service follows it."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from expectations.errors import RecommenderError, SettingError
from expectations.storage.atomic import read_json, write_json

CURRENT = "current.json"


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
            pointer = cls(**read_json(path))
            datetime.fromisoformat(pointer.horizon)
        except (TypeError, ValueError, RecommenderError) as error:
            raise SettingError(f"{path} is not a deployment pointer ({error}); deploy again") from error
        return pointer

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, asdict(self))


def read_or_none(path: Path) -> DeploymentPointer | None:
    """A pointer that is about to be replaced; a broken one is as good as none."""
    try:
        return DeploymentPointer.read(path)
    except SettingError:
        return None
