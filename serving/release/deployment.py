"""Deploying an approved bundle: verified, stored, built into a Bento, and only then pointed at. Rolling back.

deployment/
├── current.json             the DeploymentPointer that every worker of the service follows
├── history.jsonl            what served, since when (`serving.release.history`)
├── pin.json                 while a person holds a model in service: no other one is deployed
├── .lock                    held by who changes any of this, for as long as files are renamed
├── sources/<hash>.toml      the source declarations that pointers name
└── feature_rows/<version>/  the feature rows that serving reads, linked so that they stay

The pointer is replaced atomically, after everything that it names is in place: any failure leaves it, and so
the model that serves, as it was. Slow work is done before, under a lock of the stores' own, so that a rollback
never waits for a deployment that builds or hangs.

By hand: BentoML's stores have tags, but none that moves and is followed.
"""

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.gate_decision import require_approval
from expectations.contracts.source import read_source
from expectations.errors import BundleError, RejectedError, SettingError
from expectations.storage.atomic import write_text
from expectations.storage.hashes import file_hash
from serving.release.bento_store import build_bento, locked, remove_unused, store_lock, store_model
from serving.release.history import (
    PIN,
    Action,
    HistoryEntry,
    Pin,
    append_history,
    latest_by_bundle,
    read_history,
    read_pin,
    write_pin,
)
from serving.release.pointer import CURRENT, DeploymentPointer, read_or_none

LOCK_SECONDS = 20.0
NUM_CHOICES = 3
"""So many models that served last stay in BentoML's store, for rollbacks."""


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
    """What a deployment came to.

    Attributes:
        bundle: hash of the bundle that was to serve.
        pointer: what serves now; None: nothing does.
        changed: whether another bundle or none served before.
        seconds: by step.
        held_back: why the bundle does not serve, in a sentence; empty: it does.
    """

    bundle: str
    pointer: DeploymentPointer | None
    changed: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    held_back: str = ""


def pointer_lock(deployment: Path) -> AbstractContextManager[None]:
    """Held by who changes a deployment's folder; TransientError where another process holds it too long."""
    return locked(deployment / ".lock", LOCK_SECONDS)


def deploy(bundle: Path, *, gate_decisions: Path, deployment: Path, context: DeploymentContext) -> Deployed:
    """Put an approved bundle into service. The stores are those of the environment's BENTOML_HOME.

    Deploying what is deployed already only brings feature rows, horizon and the source's declaration up to date; so
    does deploying another model than the one that is pinned.

    Args:
        bundle: the bundle's folder.
        gate_decisions: folder of the gate decisions.
        deployment: folder of the pointer, `<home>/deployment`.
        context: what it serves with.

    Raises:
        BundleError: the bundle is incomplete or altered, or of another source.
        RejectedError: the gate has not approved this very bundle, or the evaluated one that it is a refit of.
        SettingError: BENTOML_HOME is not set, or something of the context is not there.
        TransientError: another process is at it, for too long.
    """
    laps = {"": time.perf_counter()}
    manifest, digest = verify_bundle(bundle)
    _require_approval(gate_decisions, manifest, digest)
    _check(manifest, context)
    laps["verify"] = time.perf_counter()
    with store_lock():
        model_tag, model = store_model(bundle, digest, manifest)
        laps["store"] = time.perf_counter()
        bento_tag = build_bento(digest, model_tag)
        laps["bento"] = time.perf_counter()
        with pointer_lock(deployment):
            # the approval may have been withdrawn while we worked, and what serves is the stored copy
            if verify_bundle(model)[1] != digest:
                raise BundleError(f"{model} is not bundle {digest[:12]} any more; deploy again")
            _require_approval(gate_decisions, manifest, digest)
            before, pin = read_or_none(deployment / CURRENT), read_pin(deployment)
            changed = before is None or before.bundle != digest
            if pin and changed:
                held_back, changed = pin.text(waiting=digest), False
                pointer = _refresh(deployment, context)
            else:
                held_back = ""
                pointer = DeploymentPointer(
                    bundle=digest,
                    model=str(model.absolute()),
                    model_tag=model_tag,
                    bento_tag=bento_tag,
                    deployed_at=_now(),
                    **_features(deployment, context),
                )
                _activate(deployment, pointer, "deploy" if changed else "refresh")
            _remove_unnamed_models(deployment)
            laps["point"] = time.perf_counter()
    seconds = {name: round(end - begin, 2) for (_, begin), (name, end) in pairwise(laps.items())}
    return Deployed(bundle=digest, pointer=pointer, changed=changed, seconds=seconds, held_back=held_back)


def refresh(deployment: Path, context: DeploymentContext) -> DeploymentPointer | None:
    """Let the deployed model serve from newer features; None where none is deployed.

    For runs that bring new features but no new model: new candidates and the newer horizon are served
    from here on. A model of another source goes on as it is.

    Raises:
        SettingError: something of the context is not there.
        BundleError: the deployed model was altered.
        TransientError: another process is at it, for too long.
    """
    with pointer_lock(deployment):
        return _refresh(deployment, context)


def _refresh(deployment: Path, context: DeploymentContext) -> DeploymentPointer | None:
    before = DeploymentPointer.read(deployment / CURRENT)
    if before is None or before.project != read_source(context.source).name:
        return before
    manifest, digest = verify_bundle(Path(before.model))
    _check(manifest, context)
    pointer = replace(before, bundle=digest, **_features(deployment, context), deployed_at=_now())
    _activate(deployment, pointer, "refresh")
    return pointer


def rollback(
    deployment: Path, *, gate_decisions: Path, who: str, reason: str = "", to: str = ""
) -> DeploymentPointer:
    """Let an earlier model serve again, with today's features, and pin it.

    Done twice, it goes back twice: to come forth again, name the model.

    Args:
        deployment: folder of the pointer, `<home>/deployment`.
        gate_decisions: folder of the gate decisions.
        who: name of the user.
        reason: why, in their words.
        to: how the bundle's hash begins; empty: the model that was deployed before the one that serves. The model
            that serves is pinned as it is.

    Raises:
        RejectedError: no model serves, or none served before, or the gate does not approve that one.
        SettingError: `to` is the beginning of no model, or of several.
        BundleError: the model is altered, or of another source.
        TransientError: another process is at it, for too long.
    """
    with pointer_lock(deployment):
        current = DeploymentPointer.read(deployment / CURRENT)
        if current is None:
            raise RejectedError(f"{deployment} has no model that serves; deploy one first")
        chosen = _choose(deployment, current, to)
        manifest, digest = verify_bundle(Path(chosen.model))
        if digest != chosen.bundle:
            raise BundleError(f"{chosen.model} is not bundle {chosen.bundle[:12]} any more; deploy it again")
        if manifest.source != current.project:
            raise BundleError(f"bundle {digest[:12]} is of source {manifest.source}, not {current.project}")
        _require_approval(gate_decisions, manifest, digest)
        # first: a rollback that is killed here leaves a pin, and no run puts another model into service
        write_pin(deployment, Pin(bundle=digest, reason=reason, who=who, when=_now()))
        restored = current
        if digest != current.bundle:
            model = {name: getattr(chosen, name) for name in ("bundle", "model", "model_tag", "bento_tag")}
            restored = replace(current, **model, deployed_at=_now())
            _activate(deployment, restored, "rollback", who=who, reason=reason)
        append_history(deployment, _entry(restored, "pin", who=who, reason=reason))
        return restored


def unpin(deployment: Path, *, who: str) -> bool:
    """Lift the pin, so that the next deployment takes place; whether one stood.

    Raises:
        TransientError: another process is at it, for too long.
    """
    with pointer_lock(deployment):
        if not (deployment / PIN).exists():
            return False
        (deployment / PIN).unlink()
        current = read_or_none(deployment / CURRENT)
        if current:
            append_history(deployment, _entry(current, "unpin", who=who))
        return True


def _choose(deployment: Path, current: DeploymentPointer, to: str) -> HistoryEntry:
    """The model that a rollback is to restore: of the current source, and still in the store."""
    entries = [entry for entry in read_history(deployment) if entry.project == current.project]
    if to:
        known = latest_by_bundle([*entries, _entry(current, "deploy")])
        choices = {bundle: entry for bundle, entry in known.items() if Path(entry.model).is_dir()}
        named = [entry for bundle, entry in choices.items() if bundle.startswith(to)]
        if len(named) != 1:
            raise SettingError(
                f"{'several models begin' if named else 'no model in the store begins'} with {to}; "
                f"choose one of {', '.join(bundle[:12] for bundle in choices)}"
            )
        return named[0]
    deployed = list(latest_by_bundle([entry for entry in entries if entry.action == "deploy"]).values())
    places = [place for place, entry in enumerate(deployed) if entry.bundle == current.bundle]
    before = deployed[places[0] + 1 :] if places else deployed
    if not before:
        raise RejectedError(f"{deployment} has no model before {current.bundle[:12]}; deploy another one")
    return before[0]


def _require_approval(gate_decisions: Path, manifest: Manifest, digest: str) -> None:
    """A refit has a decision of its own, and is only as good as the one on its evaluated parent."""
    for bundle in filter(None, (manifest.parent, digest)):
        require_approval(gate_decisions, bundle)


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


def _activate(
    deployment: Path, pointer: DeploymentPointer, action: Action, *, who: str = "", reason: str = ""
) -> None:
    """Replace the pointer and write it down; feature rows that neither it nor the one before names are removed."""
    before = read_or_none(deployment / CURRENT)
    # made before there was a history, or by a process that was killed between the two files
    if before is not None and before.bundle not in latest_by_bundle(read_history(deployment)):
        append_history(deployment, _entry(before, "deploy", when=before.deployed_at))
    pointer.write(deployment / CURRENT)
    append_history(deployment, _entry(pointer, action, who=who, reason=reason))
    versions = {Path(p.feature_rows).name for p in (pointer, before) if p}
    for folder in (deployment / "feature_rows").iterdir():
        if folder.name not in versions:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_unnamed_models(deployment: Path) -> None:
    """Remove what neither the pointer nor the history's last models name from BentoML's stores."""
    named = list(latest_by_bundle(read_history(deployment)).values())[:NUM_CHOICES]
    current = read_or_none(deployment / CURRENT)
    if current:
        named.append(_entry(current, "refresh"))
    remove_unused({entry.model_tag for entry in named}, {entry.bento_tag for entry in named})


def _entry(
    pointer: DeploymentPointer, action: Action, *, who: str = "", reason: str = "", when: str = ""
) -> HistoryEntry:
    model = {
        name: getattr(pointer, name) for name in ("bundle", "model", "model_tag", "bento_tag", "project")
    }
    return HistoryEntry(time=when or _now(), action=action, who=who, reason=reason, **model)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
