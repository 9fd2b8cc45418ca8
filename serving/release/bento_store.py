"""BentoML's two stores: the bundle as a model, and the service with its code and requirements as a Bento.

By hand: which files a Bento takes (BentoML's own patterns search the whole project, `.venv` and `.recommender`
too), and which old entries go, for BentoML keeps all.
"""

import os
import shutil
import tempfile
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.errors import BundleError
from expectations.storage.hashes import file_hash, fingerprint
from expectations.storage.locks import locked

NAME = "recommender"
SERVICE = "serving.api.service:Recommender"
NUM_RETAINED = 3
"""Models and Bentos beyond the named ones that stay in the stores, the newest."""

STORE_SECONDS = 600.0
"""How long a deployment waits for another one that is writing to the stores."""

FOLDER = "bundle"
"""The bundle's folder inside a stored model, beside BentoML's own model.yaml."""

PACKAGES = ("expectations", "features", "training", "serving")
"""What the service imports, of this project."""

CODE = (".py", ".toml", ".yaml")

REQUIREMENTS = (
    "bentoml",
    "duckdb",
    "feast",
    "ibis-framework",
    "numpy",
    "pandas",
    "psycopg2-binary",
    "pyarrow",
    "safetensors",
    "sqlalchemy",
    "sqlglot",
    "torch",
    "transformers",
)
"""What the service imports, of others; pinned to what is installed here."""


def store_lock() -> AbstractContextManager[None]:
    """Held by who writes to the stores, of all deployments that share them; TransientError as `locked`."""
    return locked(Path(os.environ["BENTOML_HOME"]) / ".recommender.lock", timeout=STORE_SECONDS)


def store_model(bundle: Path, digest: str, manifest: Manifest) -> tuple[str, Path]:
    """Copy a bundle into the model store, once.

    Returns:
        Its tag, and the bundle's folder in the store.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    tag = f"{NAME}:{digest[:16]}"
    # altered or half there: the bundle itself was verified, so copy it again
    with suppress(NotFound, BundleError):
        stored = Path(bentoml.models.get(tag).path_of(FOLDER)).resolve()
        if verify_bundle(stored)[1] == digest:
            return tag, stored
    with suppress(NotFound):
        bentoml.models.delete(tag)
    labels = {"source": manifest.source, "bundle": digest[:16]}
    with bentoml.models.create(tag, labels=labels, metadata={"bundle": digest}) as model:
        shutil.copytree(bundle, model.path_of(FOLDER))
    return tag, Path(bentoml.models.get(tag).path_of(FOLDER)).resolve()


def build_bento(digest: str, model_tag: str) -> str:
    """Build the service, our packages and pinned requirements into a Bento, once for each model and code.

    Needs no network: nothing is installed, the requirements are written down.

    Returns:
        Its tag: the bundle's hash and the code's.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    pins, code = [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS], _code()
    content = fingerprint({name: file_hash(path) for name, path in code.items()}, pins)
    tag = f"{NAME}:{digest[:16]}-{content[:8]}"
    with suppress(NotFound):
        return str(bentoml.bentos.get(tag).tag)
    with tempfile.TemporaryDirectory(prefix="bento-") as context:
        for name, path in code.items():
            copy = Path(context) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        built = bentoml.build(
            SERVICE,
            name=NAME,
            version=tag.partition(":")[2],
            labels={"bundle": digest[:16]},
            description=f"The recommendation API with bundle {digest}.",
            models=[model_tag],
            python={"packages": pins, "lock_packages": False},
            docker={"python_version": "3.11"},
            build_ctx=context,
        )
    return str(built.tag)


def remove_unused(models: set[str], bentos: set[str]) -> None:
    """Remove stored models and Bentos of ours but those whose tags are named and the newest others."""
    import bentoml

    for store, named in ((bentoml.bentos, bentos), (bentoml.models, models)):
        others = [entry for entry in store.list(NAME) if str(entry.tag) not in named]
        for old in sorted(others, key=lambda entry: entry.creation_time, reverse=True)[NUM_RETAINED:]:
            store.delete(old.tag)


def _code() -> dict[str, Path]:
    """The files of our packages that the service needs, by their paths inside the project."""
    project = Path(__file__).resolve().parents[2]
    found = (path for package in PACKAGES for path in (project / package).rglob("*") if path.suffix in CODE)
    named = {path.relative_to(project).as_posix(): path for path in sorted(found)}
    return {name: path for name, path in named.items() if "/." not in name}
