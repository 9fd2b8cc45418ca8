"""Deploying an approved bundle: verified, stored, built into a Bento, and only then pointed at.

deployment/
├── current.json             the DeploymentPointer that every worker of the service follows
├── previous.json            the one before, for `rollback`
├── sources/<hash>.toml      the source declarations that pointers name
└── feature_rows/<version>/  the feature rows that serving reads, linked so that they stay

The pointer is replaced atomically, after everything that it names is in place: any failure leaves it, and so
the model that serves, as it was. By hand: BentoML's stores have tags, but none that moves and is followed.
"""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.gate_decision import require_approval
from expectations.contracts.source import read_source
from expectations.errors import BundleError, RecommenderError, RejectedError, SettingError
from expectations.storage.atomic import read_json, write_json, write_text
from expectations.storage.hashes import file_hash
from serving.release.bento_store import build_bento, remove_unused, store_model

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
            pointer = cls(**read_json(path))
            datetime.fromisoformat(pointer.horizon)
        except (TypeError, ValueError, RecommenderError) as error:
            raise SettingError(f"{path} is not a deployment pointer ({error}); deploy again") from error
        return pointer

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, asdict(self))


@dataclass(frozen=True, kw_only=True)
class DeploymentContext:
    """What a model serves with.

    Attributes:
        source: path of the shop's `source.toml`; its content is copied.
        feature_rows: folder of the feature rows' version that is materialized into the online store.
        online_store: Feast's SQLite file (`StoreSettings.online_path`).
        horizon: naive UTC: the time up to which the data reach.
    """

    source: Path
    feature_rows: Path
    online_store: Path
    horizon: datetime


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What a deployment made: the pointer, whether another bundle or none served before, seconds by step."""

    pointer: DeploymentPointer
    changed: bool
    seconds: Mapping[str, float]


def deploy(bundle: Path, *, gate_decisions: Path, deployment: Path, context: DeploymentContext) -> Deployed:
    """Put an approved bundle into service. The stores are those of the environment's BENTOML_HOME.

    Deploying what is deployed already only brings feature rows, horizon and the source's declaration up to date.

    Args:
        bundle: the bundle's folder.
        gate_decisions: folder of the gate decisions.
        deployment: folder of the pointer, `<home>/deployment`.
        context: what it serves with.

    Raises:
        BundleError: the bundle is incomplete or altered, or of another source.
        RejectedError: the gate has not approved this very bundle.
        SettingError: BENTOML_HOME is not set, or something of the context is not there.
    """
    laps = {"": time.perf_counter()}
    manifest, digest = verify_bundle(bundle)
    require_approval(gate_decisions, digest)
    _check(manifest, context)
    laps["verify"] = time.perf_counter()
    model_tag, model = store_model(bundle, digest, manifest)
    laps["store"] = time.perf_counter()
    bento_tag = build_bento(digest, model_tag)
    laps["bento"] = time.perf_counter()
    # the approval may have been withdrawn while we worked, and what serves is the stored copy
    if verify_bundle(model)[1] != digest:
        raise BundleError(f"{model} is not bundle {digest[:12]} any more; deploy again")
    require_approval(gate_decisions, digest)
    before = _read_or_none(deployment / CURRENT)
    pointer = DeploymentPointer(
        bundle=digest,
        model=str(model.absolute()),
        model_tag=model_tag,
        bento_tag=bento_tag,
        deployed_at=_now(),
        **_features(deployment, context),
    )
    _activate(deployment, pointer)
    laps["point"] = time.perf_counter()
    seconds = {name: round(end - begin, 2) for (_, begin), (name, end) in pairwise(laps.items())}
    return Deployed(pointer=pointer, changed=before is None or before.bundle != digest, seconds=seconds)


def refresh(deployment: Path, context: DeploymentContext) -> DeploymentPointer | None:
    """Let the deployed model serve from newer features; None where none is deployed.

    For runs that bring new features but no new model: new candidates and the newer horizon are served
    from here on.

    Raises:
        SettingError: something of the context is not there.
        BundleError: the deployed model is of another source.
    """
    before = DeploymentPointer.read(deployment / CURRENT)
    if before is None:
        return None
    manifest, digest = verify_bundle(Path(before.model))
    _check(manifest, context)
    pointer = replace(before, bundle=digest, **_features(deployment, context), deployed_at=_now())
    _activate(deployment, pointer)
    return pointer


def rollback(deployment: Path) -> DeploymentPointer:
    """Let the model before serve again, with today's features; doing it twice comes back.

    Raises:
        RejectedError: there is no model before.
        BundleError: the model before is altered or gone; the current one goes on.
    """
    current, previous = (DeploymentPointer.read(deployment / name) for name in (CURRENT, PREVIOUS))
    if current is None or previous is None:
        raise RejectedError(f"{deployment} has no model before the current one; deploy one first")
    if verify_bundle(Path(previous.model))[1] != previous.bundle:
        raise BundleError(f"{previous.model} is not bundle {previous.bundle[:12]} any more; deploy it again")
    features = current if current.project == previous.project else previous
    model = {name: getattr(previous, name) for name in ("bundle", "model", "model_tag", "bento_tag")}
    restored = replace(features, **model, deployed_at=_now())
    _activate(deployment, restored)
    return restored


def _check(manifest: Manifest, context: DeploymentContext) -> None:
    if not os.environ.get("BENTOML_HOME"):
        raise SettingError("BENTOML_HOME is not set; give the folder of BentoML's stores (`make run` does)")
    for path in (context.feature_rows, context.online_store):
        if not path.exists():
            raise SettingError(f"{path} is not there; build and materialize the features first")
    source = read_source(context.source)
    if manifest.source != source.name:
        raise BundleError(
            f"the bundle was trained on source {manifest.source}, not {source.name}; "
            f"train one on {source.name}"
        )


def _features(deployment: Path, context: DeploymentContext) -> dict[str, Any]:
    """What a pointer says beside the model; the source's declaration and the feature rows are kept."""
    source, deployment = read_source(context.source), deployment.absolute()
    declared = deployment / "sources" / f"{file_hash(context.source)[:16]}.toml"
    write_text(declared, context.source.read_text(encoding="utf-8"))
    return {
        "source": str(declared),
        "project": source.name,
        "online_store": str(context.online_store.absolute()),
        "feature_rows": str(_link_feature_rows(context.feature_rows, deployment)),
        "horizon": context.horizon.isoformat(),
        "clock": source.clock,
    }


def _link_feature_rows(feature_rows: Path, deployment: Path) -> Path:
    """Links of a version's files: later runs remove the version, and a restart still needs it."""
    linked = deployment / "feature_rows" / feature_rows.name
    if linked.is_dir():
        return linked
    writing = linked.with_name(f".writing-{feature_rows.name}-{os.getpid()}")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    for file in sorted(feature_rows.glob("*.parquet")):
        try:
            os.link(file, writing / file.name)
        except OSError:  # another file system, or one without links
            shutil.copy2(file, writing / file.name)
    writing.rename(linked)
    return linked


def _activate(deployment: Path, pointer: DeploymentPointer) -> None:
    """Replace the pointer; the bundle before becomes the previous one; what nothing names is removed."""
    before = _read_or_none(deployment / CURRENT)
    if before is not None and before.bundle != pointer.bundle:
        before.write(deployment / PREVIOUS)
    pointer.write(deployment / CURRENT)
    named = [p for p in (pointer, before, _read_or_none(deployment / PREVIOUS)) if p]
    versions = {Path(p.feature_rows).name for p in named}
    for folder in (deployment / "feature_rows").iterdir():
        if folder.name not in versions:
            shutil.rmtree(folder, ignore_errors=True)
    remove_unused({p.model_tag for p in named}, {p.bento_tag for p in named})


def _read_or_none(path: Path) -> DeploymentPointer | None:
    """A pointer that is about to be replaced; a broken one is as good as none."""
    try:
        return DeploymentPointer.read(path)
    except SettingError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
