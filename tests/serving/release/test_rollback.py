"""Rolling back, pinning, and two processes that release at once."""

import json
import shutil
import threading
import time
from dataclasses import replace

import pytest

from expectations.contracts.bundle import bundle_hash, verify_bundle
from expectations.errors import BundleError, RejectedError, SettingError, TransientError
from serving.release import deployment
from serving.release.deployment import deploy, refresh, rollback, unpin
from serving.release.history import read_history, read_pin
from serving.release.pointer import CURRENT, RELEASES, DeploymentPointer, current_release

pytestmark = pytest.mark.slow


def back(release, to=""):
    return rollback(
        release.folder,
        gate_decisions=release.decisions,
        who="ann",
        check=release.checked.append,
        reason="bad",
        to=to,
    )


def folder_of(release, entry):
    return release.folder / RELEASES / entry.release


def serving(release):
    return DeploymentPointer.read(release.folder / CURRENT).bundle


def told(release):
    return [(entry.action, entry.bundle) for entry in read_history(release.folder)]


def test_rollback_walks_back_by_the_deployments_and_never_forth(release) -> None:
    with pytest.raises(RejectedError, match="no model that serves"):
        back(release)
    release.put(release.bundle("first"))
    with pytest.raises(RejectedError, match="no model before"):
        back(release)
    names = [serving(release)]
    for name in ("second", "third"):
        release.put(release.bundle(name), "v2")
        names.append(serving(release))
    first, second, third = names
    for expected in (second, first):  # pressed twice, it does not bring back what was bad
        assert back(release).bundle == expected == serving(release)
    assert current_release(release.folder).features == "v2"
    with pytest.raises(RejectedError, match="no model before"):
        back(release)
    assert back(release, third[:7]).bundle == third == serving(release)
    with pytest.raises(SettingError, match=rf"begins with nothing.*{second[:12]}"):
        back(release, "nothing")
    deploys = [("deploy", name) for name in names]
    rolled = [(action, name) for name in (second, first, third) for action in ("rollback", "pin")]
    assert told(release) == [*deploys, *rolled]
    entry = json.loads((release.folder / "history.jsonl").read_text().splitlines()[-1])
    assert (entry["who"], entry["reason"]) == ("ann", "bad")


def test_rollback_to_a_bundle_not_approved_altered_or_of_another_source_is_refused(release) -> None:
    parent = release.bundle("parent")
    refit = release.bundle("refit", parent=bundle_hash(parent))
    altered, last = release.bundle("altered"), release.bundle("last")
    for bundle in (refit, altered, last):
        release.put(bundle)
    before, current = (release.folder / CURRENT).read_bytes(), serving(release)
    entries = {entry.bundle: entry for entry in read_history(release.folder)}
    (folder_of(release, entries[bundle_hash(altered)]) / "bundle" / "weights").write_text("other weights")
    with pytest.raises(BundleError, match="weights was altered"):
        back(release)
    release.decide(bundle_hash(parent), approved=False)  # its refit's own decision stands
    with pytest.raises(RejectedError, match=r"AUC 0\.40 is below"):
        back(release, bundle_hash(refit))
    release.decide(bundle_hash(parent), approved=True)
    release.decide(bundle_hash(refit), approved=False)
    with pytest.raises(RejectedError, match=r"AUC 0\.40 is below"):
        back(release, bundle_hash(refit))
    shutil.rmtree(folder_of(release, entries[bundle_hash(refit)]))
    with pytest.raises(SettingError, match="that is there"):
        back(release, bundle_hash(refit))
    assert ((release.folder / CURRENT).read_bytes(), serving(release)) == (before, current)
    assert read_pin(release.folder) is None
    assert [action for action, _ in told(release)] == ["deploy"] * 3


def test_a_refit_whose_parent_is_not_approved_is_not_deployed(release) -> None:
    parent = release.bundle("parent", approved=False)
    with pytest.raises(RejectedError, match=r"AUC 0\.40 is below"):
        release.put(release.bundle("refit", parent=bundle_hash(parent)))


def test_a_pin_holds_against_deployments_until_a_person_lifts_it(release) -> None:
    first, second, third = (release.bundle(name) for name in ("first", "second", "third"))
    release.put(first)
    release.put(second)
    back(release)
    pin = read_pin(release.folder)
    assert (pin.bundle, pin.who, pin.reason) == (bundle_hash(first), "ann", "bad")
    held = release.put(third, "v2")
    waiting = bundle_hash(third)
    assert held.bundle == waiting and not held.changed
    assert f"model {pin.bundle[:12]} is pinned" in held.held_back
    assert "by ann: bad" in held.held_back and f"model {waiting[:12]} waits" in held.held_back
    assert serving(release) == bundle_hash(first) == held.release.bundle
    assert held.release.features == "v2"
    assert refresh(release.folder, release.context("v3")).bundle == bundle_hash(first)
    assert release.put(first).held_back == ""  # what is pinned may be deployed
    assert unpin(release.folder, who="ben") is True
    assert unpin(release.folder, who="ben") is False
    assert release.put(third).held_back == ""
    assert serving(release) == waiting
    actions = [action for action, _ in told(release)]
    assert actions == ["deploy", "deploy", "rollback", "pin", *["refresh"] * 3, "unpin", "deploy"]


def test_a_model_that_reads_other_columns_is_tried_before_it_serves_again(release) -> None:
    same, other = release.bundle("same"), release.bundle("other", numeric=("item_price",))
    for bundle in (other, same, release.bundle("last")):
        release.put(bundle)
    release.checked.clear()
    back(release)
    assert release.checked == []
    back(release)
    assert [tried.bundle for tried in release.checked] == [bundle_hash(other)]


def test_a_release_that_fails_its_trial_changes_nothing(release) -> None:
    def refuse(_release):
        raise BundleError("the model wants item_price")

    release.put(release.bundle("first"))
    before = (release.folder / CURRENT).read_bytes()
    refused = replace(release.context("v2"), check=refuse)
    with pytest.raises(BundleError, match="item_price"):
        refresh(release.folder, refused)
    second = release.bundle("second")
    with pytest.raises(BundleError, match="item_price"):
        deploy(second, gate_decisions=release.decisions, deployment=release.folder, context=refused)
    assert (release.folder / CURRENT).read_bytes() == before
    assert told(release) == [("deploy", serving(release))]


def test_a_moved_home_serves_its_release_from_where_it_is(release, tmp_path) -> None:
    first = release.put(release.bundle("first")).release
    moved = release.folder.rename(tmp_path / "elsewhere")
    found = current_release(moved)
    assert (found.name, found.folder.parent) == (first.name, moved / RELEASES)
    assert (moved / "current").resolve() == found.folder.resolve()
    assert verify_bundle(found.model)[1] == first.bundle
    files = [path for path in moved.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")]
    assert not [path for path in files if str(release.folder) in path.read_text()]


def test_what_serves_can_be_pinned_as_it_is(release) -> None:
    release.put(release.bundle("first"))
    before = (release.folder / CURRENT).read_bytes()
    back(release, serving(release)[:10])
    assert read_pin(release.folder).bundle == serving(release)
    assert (release.folder / CURRENT).read_bytes() == before
    assert [action for action, _ in told(release)] == ["deploy", "pin"]


def test_the_last_three_models_stay(release, monkeypatch) -> None:
    monkeypatch.setattr(deployment, "CHECK_SECONDS", -1)  # nothing counts as just made
    bundles = [release.bundle(f"bundle{n}") for n in range(8)]
    for bundle in bundles[:3]:
        release.put(bundle)
    for name in (0, 1, 2):
        back(release, bundle_hash(bundles[name]))
        unpin(release.folder, who="ann")
    for n, bundle in enumerate(bundles[3:]):
        release.decide(bundle_hash(bundle), approved=True)
        release.put(bundle, f"v{n}")
    entries = {entry.bundle: folder_of(release, entry) for entry in read_history(release.folder)}
    remaining = [n for n, bundle in enumerate(bundles) if entries[bundle_hash(bundle)].exists()]
    assert set(remaining) >= {5, 6, 7}
    assert 0 not in remaining
    assert back(release, bundle_hash(bundles[5])).bundle == bundle_hash(bundles[5])


def test_a_home_without_a_history_and_a_torn_line_can_be_rolled_back(release) -> None:
    first, second = release.bundle("first"), release.bundle("second")
    release.put(first)
    (release.folder / "history.jsonl").unlink()
    release.put(second)
    with (release.folder / "history.jsonl").open("a") as history:
        history.write('{"time": "2020\n')
    assert back(release).bundle == bundle_hash(first)


def test_two_processes_that_deploy_the_same_new_bundle_both_end_well(release) -> None:
    bundle = release.bundle("first")
    children = [release.process("put(bundles[0])", bundle) for _ in range(2)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert verify_bundle(current_release(release.folder).model)[1] == bundle_hash(bundle)
    assert sorted(action for action, _ in told(release)) == ["deploy", "refresh"]


def test_what_a_pointer_names_is_there_while_two_processes_release(release) -> None:
    bundles = [release.bundle(name) for name in ("first", "second")]
    for bundle in bundles:
        release.put(bundle)
    for n in range(40):
        release.context(f"a{n}")
        release.context(f"b{n}")
    codes = (
        "for n in range(10): put(bundles[n % 2], f'a{n}')",
        "for n in range(40):\n    refresh(folder, context(f'b{n}'))\n    time.sleep(0.02)",
    )
    children = [release.process(code, *bundles) for code in codes]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    lost = set()
    while any(child.poll() is None for child in children):
        pointer = DeploymentPointer.read(release.folder / CURRENT)
        there = (release.folder / RELEASES / pointer.release / "store" / "catalogue.parquet").exists()
        if not there and DeploymentPointer.read(release.folder / CURRENT) == pointer:
            lost.add(pointer.release)
    errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert lost == set()
    history = read_history(release.folder)
    assert len(history) == 2 + 10 + 40
    assert history[-1].bundle == serving(release)
    changes = zip(history[1:], history, strict=False)
    assert all((e.action == "deploy") == (e.bundle != before.bundle) for e, before in changes)


def test_a_killed_deployer_frees_the_lock_and_a_hung_one_is_named(release, holder, monkeypatch) -> None:
    release.put(release.bundle("first"))
    release.put(release.bundle("second"))
    child = holder("pointer_lock(folder)")
    monkeypatch.setattr(deployment, "LOCK_SECONDS", 0.3)
    with pytest.raises(TransientError, match=r"another process has held .*fuser"):
        back(release)
    monkeypatch.undo()
    done = []
    waiting = threading.Thread(target=lambda: done.append(back(release)))
    waiting.start()
    time.sleep(0.5)
    assert not done
    child.kill()
    waiting.join(5)
    assert done[0].bundle == serving(release)


def test_a_rollback_does_not_wait_for_a_deployment_that_hangs_in_the_stores(release, holder) -> None:
    release.put(release.bundle("first"))
    release.put(release.bundle("second"))
    holder("store_lock()")
    begun = time.monotonic()
    back(release)
    assert time.monotonic() - begun < 1
