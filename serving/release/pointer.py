"""The pointer of a deployment, `current.json`: which release serves, as every worker of the service follows it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from expectations.errors import RecommenderError, SettingError
from expectations.storage.atomic import read_json, write_json
from serving.release.release import Release

CURRENT, RELEASES = "current.json", "releases"


@dataclass(frozen=True, kw_only=True)
class DeploymentPointer:
    """What serves.

    Attributes:
        release: name of the release's folder, in `releases` beside the pointer.
        bundle, project: as in the release.
        deployed_at: ISO 8601, UTC.
    """

    release: str
    bundle: str
    project: str
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
            return cls(**read_json(path))
        except (TypeError, RecommenderError) as error:
            raise SettingError(f"{path} is not a deployment pointer ({error}); deploy again") from error

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, asdict(self))


def current_release(deployment: Path) -> Release | None:
    """The release that serves, of a deployment's folder; None where none does.

    Raises:
        SettingError: the pointer or its release cannot be read.
    """
    pointer = DeploymentPointer.read(deployment / CURRENT)
    return Release.read(deployment / RELEASES / pointer.release) if pointer else None
