"""What the serving tests share: a small shop, two models of it, and a home to deploy into."""

from pathlib import Path

import pytest

from expectations.contracts.bundle import bundle_hash
from expectations.contracts.gate_decision import GateDecision, RuleResult, write_gate_decision
from serving.release.deployment import Deployed, deploy
from serving.release.release import Release
from tests.serving.shop import HORIZON, NUM_USERS, Shop, build, exposure
from tests.training.synthetic import write_encoder


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def later(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The same shop a little later: its coupons were sent once more, at the very end of the data."""
    also = [
        exposure(f"last-{user}-{item}", f"u{user}", f"c{item}", HORIZON, outcome=user == item)
        for user in range(NUM_USERS)
        for item in range(8)
    ]
    return build(tmp_path_factory.mktemp("later"), also=also)


@pytest.fixture(scope="session")
def bundles(later: Shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models, of different seeds."""
    from training.config.recipe import read_recipe
    from training.pipeline.fit import fit

    folder = tmp_path_factory.mktemp("models")
    recipe = read_recipe(None).updated(
        encoder={"name": str(write_encoder(folder / "encoder")), "trainable_layers": 0, "max_tokens": 24},
        tabular_model={"ensemble_size": 2, "hidden_size": 16, "epochs": 4, "negatives_per_positive": 1e9},
        text_model={"hidden_size": 16, "projection_size": 8},
        finetuning={"epochs": 2, "negatives_per_positive": 1e9},
        early_stopping={"refit": False},
    )
    return tuple(  # type: ignore[return-value]
        fit(
            later.examples,
            recipe.updated(seed=seed),
            out=folder / "bundles",
            work=folder / f"work{seed}",
            log_dir=folder / f"log{seed}",
            progress=False,
        ).bundle
        for seed in (1, 2)
    )


@pytest.fixture
def home(tmp_path: Path, bento_home: Path) -> Path:
    return tmp_path / "home"


def write_decision(home: Path, bundle: Path, *, approved: bool = True) -> None:
    """The gate's decision on a bundle."""
    rule = RuleResult(rule="auc", value=0.4, bound=0.5, passed=approved, reason="AUC 0.40 is below 0.50")
    decision = GateDecision(
        bundle=bundle_hash(bundle), approved=approved, created_at="2020-03-01", rules=(rule,)
    )
    write_gate_decision(home / "gate_decisions", decision)


def deploy_approved(home: Path, shop: Shop, bundle: Path) -> Deployed:
    """Deploy a bundle for which a decision was written."""
    folders = {"gate_decisions": home / "gate_decisions", "deployment": home / "deployment"}
    return deploy(bundle, **folders, context=shop.context)


def put(home: Path, shop: Shop, bundle: Path) -> Release:
    """Approve a bundle and deploy it."""
    write_decision(home, bundle)
    return deploy_approved(home, shop, bundle).release
