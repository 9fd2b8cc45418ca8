"""Deploying an approved bundle: made a release, checked, and only then pointed at. Rolling back.

deployment/
├── current.json       the DeploymentPointer that every worker of the service follows
├── current            a link to its release, for people
├── releases/<name>/   what serves and what may serve again (`serving.release.release`)
├── history.jsonl      what served, since when (`serving.release.history`)
├── pin.json           while a person holds a model in service: no other one is deployed
└── .lock              held by who changes any of this, for as long as files are renamed

The pointer is replaced atomically, after the whole release is in place and checked: any failure leaves it, and so
what serves, as it was. Slow work is done before, under a lock of the stores' own, so that a rollback never waits for
a deployment that builds or hangs.

By hand: BentoML's stores have tags, but none that moves and is followed.
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.contracts.gate_decision import require_approval
from expectations.contracts.source import read_source
from expectations.errors import BundleError, RejectedError, SettingError, TransientError
from expectations.storage.locks import locked
from serving.release.bento_store import build_bento, remove_unused, store_lock, store_model
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
from serving.release.pointer import CURRENT, RELEASES, DeploymentPointer, current_release
from serving.release.release import Release, make_release

LOCK_SECONDS = 20.0
CHECK_SECONDS = 600.0
"""A release that was made in that time may be in another process's hands, about to serve."""

NUM_CHOICES = 3
"""So many models that served last stay, for rollbacks."""

Check = Callable[[Release], None]
"""Tries a release that does not serve yet, and raises an error where it would not."""


@dataclass(frozen=True, kw_only=True)
class DeploymentContext:
    """What a model serves with.

    Attributes:
        source: path of the shop's `source.toml`; its content is copied.
        store: folder of the version of the Feast store; its files are linked.
        check: tries every release before it serves.
    """

    source: Path
    store: Path
    check: Check


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What a deployment came to.

    Attributes:
        bundle: hash of the bundle that was to serve.
        release: what serves now; None: nothing does.
        changed: whether another bundle or none served before.
        seconds: by step.
        held_back: why the bundle does not serve, in a sentence; empty: it does.
    """

    bundle: str
    release: Release | None
    changed: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    held_back: str = ""


def pointer_lock(deployment: Path) -> AbstractContextManager[None]:
    """Held by who changes a deployment's folder; TransientError where another process holds it too long."""
    return locked(deployment / ".lock", timeout=LOCK_SECONDS)


def deploy(bundle: Path, *, gate_decisions: Path, deployment: Path, context: DeploymentContext) -> Deployed:
    """Put an approved bundle into service. The stores are those of the environment's BENTOML_HOME.

    Deploying what is deployed already only brings the features and the source's declaration up to date; so does
    deploying another model than the one that is pinned.

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
    if not os.environ.get("BENTOML_HOME"):
        raise SettingError("BENTOML_HOME is not set; give the folder of BentoML's stores (`make run` does)")
    manifest, digest = verify_bundle(bundle)
    _require_approval(gate_decisions, manifest, digest)
    laps["verify"] = time.perf_counter()
    with store_lock():
        model_tag, model = store_model(bundle, digest, manifest)
        laps["store"] = time.perf_counter()
        bento_tag = build_bento(digest, model_tag)
        laps["bento"] = time.perf_counter()

        def release() -> Release:
            return _make(deployment, model, context, model_tag=model_tag, bento_tag=bento_tag)

        context.check(release())
        laps["check"] = time.perf_counter()
        with pointer_lock(deployment):
            # the approval may have been withdrawn while we worked, and what serves is the stored copy
            _require_approval(gate_decisions, manifest, digest)
            before, pin = _serving(deployment), read_pin(deployment)
            held_back, changed = "", before is None or before.bundle != digest
            if pin and changed:
                held_back, changed = pin.text(waiting=digest), False
            else:
                # again: another process that released meanwhile may have removed what did not serve yet
                before = release()
                _activate(deployment, before, "deploy" if changed else "refresh")
            _remove_unneeded(deployment)
        if held_back:
            before = refresh(deployment, context)
        laps["point"] = time.perf_counter()
    seconds = {name: round(end - begin, 2) for (_, begin), (name, end) in pairwise(laps.items())}
    return Deployed(bundle=digest, release=before, changed=changed, seconds=seconds, held_back=held_back)


def refresh(deployment: Path, context: DeploymentContext) -> Release | None:
    """Let the deployed model serve from newer features; None where none is deployed.

    For runs that bring new features but no new model: new candidates and the newer horizon are served
    from here on. A model of another source goes on as it is.

    Raises:
        SettingError: something of the context is not there.
        BundleError: the deployed model was altered.
        TransientError: another process is at it, for too long.
    """
    for _ in range(3):
        before = current_release(deployment)
        if before is None or before.project != read_source(context.source).name:
            return before
        context.check(_with_features(deployment, before, context))
        with pointer_lock(deployment):
            now = current_release(deployment)
            if now and now.bundle == before.bundle:
                release = _with_features(deployment, now, context)
                _activate(deployment, release, "refresh")
                _remove_unneeded(deployment)
                return release
    raise TransientError(
        f"other processes go on changing what {deployment} serves; run again when they have ended"
    )


def rollback(
    deployment: Path, *, gate_decisions: Path, who: str, check: Check, reason: str = "", to: str = ""
) -> Release:
    """Let an earlier model serve again, with today's features, and pin it.

    Done twice, it goes back twice: to come forth again, name the model.

    Args:
        deployment: folder of the pointer, `<home>/deployment`.
        gate_decisions: folder of the gate decisions.
        who: name of the user.
        check: tries the release before it serves, if the model reads columns that the serving one does not.
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
        current = current_release(deployment)
        if current is None:
            raise RejectedError(f"{deployment} has no model that serves; deploy one first")
        chosen = Release.read(deployment / RELEASES / _choose(deployment, current, to).release)
        manifest, digest = verify_bundle(chosen.model)
        if digest != chosen.bundle:
            raise BundleError(f"{chosen.model} is not bundle {chosen.bundle[:12]} any more; deploy it again")
        _require_approval(gate_decisions, manifest, digest)
        restored = current
        if digest != current.bundle:
            today = DeploymentContext(source=current.source, store=current.store, check=check)
            restored = _with_features(deployment, chosen, today, features=current.features)
            if not _columns(manifest) <= _columns(verify_bundle(current.model)[0]):
                check(restored)
        # first: a rollback that is killed here leaves a pin, and no run puts another model into service
        write_pin(deployment, Pin(bundle=digest, reason=reason, who=who, when=_now()))
        if restored is not current:
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
        current = _serving(deployment)
        if current:
            append_history(deployment, _entry(current, "unpin", who=who))
        return True


def _choose(deployment: Path, current: Release, to: str) -> HistoryEntry:
    """The model that a rollback is to restore: of the current source, and still there."""
    entries = [entry for entry in read_history(deployment) if entry.project == current.project]
    if to:
        known = latest_by_bundle([*entries, _entry(current, "deploy")])
        choices = {
            bundle: entry
            for bundle, entry in known.items()
            if (deployment / RELEASES / entry.release).is_dir()
        }
        named = [entry for bundle, entry in choices.items() if bundle.startswith(to)]
        if len(named) != 1:
            raise SettingError(
                f"{'several models begin' if named else 'no model that is there begins'} with {to}; "
                f"choose one of {', '.join(bundle[:12] for bundle in choices)}"
            )
        return named[0]
    deployed = list(latest_by_bundle([entry for entry in entries if entry.action == "deploy"]).values())
    places = [place for place, entry in enumerate(deployed) if entry.bundle == current.bundle]
    before = deployed[places[0] + 1 :] if places else deployed
    if not before:
        raise RejectedError(f"{deployment} has no model before {current.bundle[:12]}; deploy another one")
    latest = latest_by_bundle(entries)[before[0].bundle]  # a refresh has moved it to another release
    return latest


def _require_approval(gate_decisions: Path, manifest: Manifest, digest: str) -> None:
    """A refit has a decision of its own, and is only as good as the one on its evaluated parent."""
    for bundle in filter(None, (manifest.parent, digest)):
        require_approval(gate_decisions, bundle)


def _columns(manifest: Manifest) -> set[str]:
    return {*manifest.numeric, *manifest.categorical}


def _make(
    deployment: Path, model: Path, context: DeploymentContext, *, features: str = "", **tags: str
) -> Release:
    return make_release(
        deployment / RELEASES,
        bundle=model,
        store=context.store,
        source=context.source,
        features=features or context.store.name,
        **tags,
    )


def _with_features(
    deployment: Path, release: Release, context: DeploymentContext, *, features: str = ""
) -> Release:
    """The model of a release, with the features of a context."""
    tags = {"model_tag": release.model_tag, "bento_tag": release.bento_tag}
    return _make(deployment, release.model, context, features=features, **tags)


def _activate(deployment: Path, release: Release, action: Action, *, who: str = "", reason: str = "") -> None:
    """Replace the pointer and write it down."""
    before = _serving(deployment)
    # made before there was a history, or by a process that was killed between the two files
    if before is not None and before.bundle not in latest_by_bundle(read_history(deployment)):
        append_history(deployment, _entry(before, "deploy"))
    pointer = DeploymentPointer(
        release=release.name, bundle=release.bundle, project=release.project, deployed_at=_now()
    )
    pointer.write(deployment / CURRENT)
    _link_current(deployment, release)
    append_history(deployment, _entry(release, action, who=who, reason=reason))


def _link_current(deployment: Path, release: Release) -> None:
    link = deployment / ".current"
    with suppress(OSError):  # a file system without links
        link.unlink(missing_ok=True)
        link.symlink_to(Path(RELEASES) / release.name)
        link.replace(deployment / "current")


def _remove_unneeded(deployment: Path) -> None:
    """Remove all releases but the last two, the last of each model that may serve again, and those just made.

    What BentoML stores of them goes as well.
    """
    entries = read_history(deployment)
    models = list(latest_by_bundle(entries).values())[:NUM_CHOICES]
    served = list(dict.fromkeys(entry.release for entry in reversed(entries)))[:2]
    needed = {*served, *(entry.release for entry in models)}
    for folder in (deployment / RELEASES).iterdir():
        if folder.name not in needed and time.time() - folder.stat().st_mtime > CHECK_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    stored = [
        Release.read(deployment / RELEASES / name)
        for name in needed
        if (deployment / RELEASES / name).is_dir()
    ]
    remove_unused({release.model_tag for release in stored}, {release.bento_tag for release in stored})


def _serving(deployment: Path) -> Release | None:
    """What is about to be replaced; what is broken is as good as nothing."""
    try:
        return current_release(deployment)
    except SettingError:
        return None


def _entry(release: Release, action: Action, *, who: str = "", reason: str = "") -> HistoryEntry:
    return HistoryEntry(
        time=_now(),
        action=action,
        release=release.name,
        bundle=release.bundle,
        project=release.project,
        who=who,
        reason=reason,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
