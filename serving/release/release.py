"""A release: all that serves, in one folder that nobody writes to again and that can be moved.

<name>/
├── release.json     what it is (the attributes of `Release`)
├── bundle/          the model
├── store/           a version of the Feast store, with the catalogue and the feature rows in it
└── source.toml      the shop's declaration

It is named by a hash of all of that, and filled beside the one that serves; its files are links, so it takes no time.
"""

import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from expectations.contracts.bundle import verify_bundle
from expectations.contracts.source import read_source
from expectations.errors import BundleError, RecommenderError, SettingError
from expectations.storage.atomic import read_json, write_json
from expectations.storage.hashes import file_hash, fingerprint
from expectations.storage.links import link_folder

FACTS, BUNDLE, STORE, SOURCE = "release.json", "bundle", "store", "source.toml"


@dataclass(frozen=True, kw_only=True)
class Release:
    """What serves as a whole.

    Attributes:
        folder: where it lies; its name is the release's.
        bundle: hash of the bundle.
        project: name of the Feast project, the source's.
        features: version of the Feast store.
        horizon: naive UTC, ISO 8601: the time up to which the data reach.
        clock: the time of a request that names none: "now", or "data" for the horizon.
        model_tag, bento_tag: of the bundle and the service in BentoML's stores.
    """

    folder: Path
    bundle: str
    project: str
    features: str
    horizon: str
    clock: Literal["now", "data"]
    model_tag: str
    bento_tag: str

    @classmethod
    def read(cls, folder: Path) -> "Release":
        """The release of a folder.

        Raises:
            SettingError: the folder holds none.
        """
        try:
            release = cls(folder=folder, **read_json(folder / FACTS))
            datetime.fromisoformat(release.horizon)
        except (TypeError, ValueError, RecommenderError) as error:
            raise SettingError(f"{folder} is no release ({error}); deploy again") from error
        return release

    @property
    def name(self) -> str:
        """Its hash."""
        return self.folder.name

    @property
    def model(self) -> Path:
        """The bundle's folder."""
        return self.folder / BUNDLE

    @property
    def store(self) -> Path:
        """The folder of the Feast store."""
        return self.folder / STORE

    @property
    def source(self) -> Path:
        """The shop's declaration."""
        return self.folder / SOURCE

    def default_as_of(self) -> datetime:
        """The time of a request that names none, naive UTC."""
        if self.clock == "data":
            return datetime.fromisoformat(self.horizon)
        return datetime.now(UTC).replace(tzinfo=None)


def make_release(
    releases: Path, *, bundle: Path, store: Path, source: Path, features: str, model_tag: str, bento_tag: str
) -> Release:
    """Fill a release's folder, unless it is there.

    Args:
        releases: where releases lie.
        bundle: folder of the model; verified, and linked.
        store: folder of the Feast store; linked.
        source: the shop's declaration; copied.
        features: version of the store.
        model_tag: of the bundle in BentoML's store.
        bento_tag: of the service with it.

    Raises:
        BundleError: the bundle is altered, or of another source.
        SettingError: the store is not there.
    """
    manifest, digest = verify_bundle(bundle)
    declared = read_source(source)
    if manifest.source != declared.name:
        raise BundleError(
            f"the bundle was trained on source {manifest.source}, not {declared.name}; "
            f"train one on {declared.name}"
        )
    if not (store / "facts.json").exists():
        raise SettingError(f"{store} is no Feast store; build the features and fill it first")
    facts: dict[str, Any] = {
        "bundle": digest,
        "project": declared.name,
        "features": features,
        "horizon": read_json(store / "facts.json")["horizon"],
        "clock": declared.clock,
        "model_tag": model_tag,
        "bento_tag": bento_tag,
    }
    folder = releases / fingerprint(facts, file_hash(source))
    if not _is_whole(folder, digest):
        writing = releases / f".writing-{folder.name}-{os.getpid()}"
        shutil.rmtree(writing, ignore_errors=True)
        link_folder(bundle, writing / BUNDLE)
        link_folder(store, writing / STORE)
        shutil.copyfile(source, writing / SOURCE)
        write_json(writing / FACTS, facts)
        shutil.rmtree(folder, ignore_errors=True)
        writing.rename(folder)
    return Release(folder=folder, **facts)


def facts_of(release: Release) -> dict[str, Any]:
    """The attributes of a release beside its folder."""
    facts = asdict(release)
    del facts["folder"]
    return facts


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return (folder / FACTS).exists() and verify_bundle(folder / BUNDLE)[1] == digest
    except BundleError:
        return False
