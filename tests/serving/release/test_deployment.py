"""Deployment: what may serve, what may not, and that a refusal changes nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from expectations.contracts.bundle import bundle_hash, verify_bundle
from expectations.errors import BundleError, RejectedError, SettingError
from serving.release.bento_store import PACKAGES
from serving.release.deployment import deploy, refresh
from serving.release.history import read_history
from serving.release.pointer import current_release
from tests.serving.conftest import deploy_approved, put, write_decision

pytestmark = pytest.mark.slow


def test_approved_bundle_is_stored_built_and_pointed_at(home, shop, bundles) -> None:
    import bentoml

    write_decision(home, bundles[0])
    deployed = deploy_approved(home, shop, bundles[0])
    assert list(deployed.seconds) == ["verify", "store", "bento", "check", "point"]
    release = current_release(home / "deployment")
    assert deployed.changed
    assert release == deployed.release
    assert release.clock == "data"
    assert verify_bundle(release.model)[1] == bundle_hash(bundles[0]) == release.bundle
    bento = bentoml.bentos.get(release.bento_tag)
    assert [str(model.tag) for model in bento.info.all_models] == [release.model_tag]
    code = Path(bento.path_of("src"))
    assert (code / "serving" / "api" / "service.py").exists()
    assert not list(code.rglob("*.pyc"))
    assert "torch==2.13.0" in Path(bento.path_of("env/python/requirements.txt")).read_text()
    assert {path.name for path in code.iterdir() if path.is_dir()} == set(PACKAGES)
    assert (code / "serving" / "ranking" / "sentences.toml").exists()


def test_deploying_again_changes_nothing_but_the_time(home, shop, bundles) -> None:
    write_decision(home, bundles[0])
    first, second = (deploy_approved(home, shop, bundles[0]) for _ in range(2))
    assert not second.changed
    assert second.release == first.release
    assert [entry.action for entry in read_history(home / "deployment")] == ["deploy", "refresh"]


def test_rejected_unevaluated_and_altered_bundles_are_refused(home, shop, bundles, tmp_path) -> None:
    put(home, shop, bundles[0])
    before = (home / "deployment" / "current.json").read_bytes()
    with pytest.raises(RejectedError, match=r"bundle \w+ has no"):
        deploy_approved(home, shop, bundles[1])
    write_decision(home, bundles[1], approved=False)
    with pytest.raises(RejectedError, match=r"AUC 0\.40 is below"):
        deploy_approved(home, shop, bundles[1])
    altered = tmp_path / "altered"
    shutil.copytree(bundles[0], altered)
    weights = altered / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="altered"):
        deploy_approved(home, shop, altered)
    manifest = json.loads((bundles[0] / "manifest.json").read_text())
    shutil.copyfile(bundles[0] / "model.safetensors", weights)
    (altered / "manifest.json").write_text(json.dumps({**manifest, "created_at": "another day"}))
    # a gate decision is not lent to another manifest
    with pytest.raises(RejectedError, match=r"bundle \w+ has no"):
        deploy_approved(home, shop, altered)
    assert (home / "deployment" / "current.json").read_bytes() == before


def test_altered_copy_is_replaced(home, shop, bundles) -> None:
    released = put(home, shop, bundles[0]).model
    (released / "transforms.json").write_text("{}")
    with pytest.raises(BundleError, match=r"transforms\.json was altered"):
        refresh(home / "deployment", shop.context)
    again = put(home, shop, bundles[0])
    assert verify_bundle(again.model)[1] == again.bundle


def test_newer_features_serve_without_a_new_model(home, shop, later, bundles) -> None:
    deployed = put(home, shop, bundles[0])
    assert refresh(home / "nothing", later.context) is None
    newer = refresh(home / "deployment", later.context)
    assert newer.bundle == deployed.bundle
    assert newer.horizon > deployed.horizon
    assert newer.features == later.store.name
    assert (newer.store / "catalogue.parquet").exists()


def test_bundle_of_another_source_and_missing_features_are_refused(home, shop, bundles, tmp_path) -> None:
    write_decision(home, bundles[0])
    other = tmp_path / "other.toml"
    other.write_text(shop.source.read_text().replace("small_shop", "other_shop"))
    here = {"gate_decisions": home / "gate_decisions", "deployment": home / "deployment"}
    with pytest.raises(BundleError, match="small_shop, not other_shop"):
        deploy(bundles[0], **here, context=replace(shop.context, source=other))
    with pytest.raises(SettingError, match="is no Feast store"):
        deploy(bundles[0], **here, context=replace(shop.context, store=tmp_path / "none"))
    assert not (home / "deployment" / "current.json").exists()
