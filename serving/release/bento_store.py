"""BentoML's two stores: the bundle as a model, and the service with its code and requirements as a Bento."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.errors import BundleError
from expectations.storage.hashes import file_hash, fingerprint

NAME = "recommender"
SERVICE = "serving.api.service:Recommender"
NUM_RETAINED = 3
"""Models and Bentos beyond the deployed ones that stay in the stores, the newest."""

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


def store_model(bundle: Path, digest: str, manifest: Manifest) -> tuple[str, Path]:
    """Copy a bundle into the model store, once.

    Returns:
        Its tag, and the bundle's folder in the store.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    tag = f"{NAME}:{digest[:16]}"
    try:
        stored = Path(bentoml.models.get(tag).path_of(FOLDER))
        if verify_bundle(stored)[1] == digest:
            return tag, stored
        bentoml.models.delete(tag)
    except NotFound:
        pass
    except BundleError:  # altered or half there: the bundle itself was verified, so copy it again
        bentoml.models.delete(tag)
    labels = {"source": manifest.source, "bundle": digest[:16]}
    with bentoml.models.create(tag, labels=labels, metadata={"bundle": digest}) as model:
        shutil.copytree(bundle, model.path_of(FOLDER))
    return tag, Path(bentoml.models.get(tag).path_of(FOLDER))


def build_bento(digest: str, model_tag: str) -> str:
    """Build the service, our packages and pinned requirements into a Bento, once for each model and code.

    Needs no network: nothing is installed, the requirements are written down.

    Returns:
        Its tag: the bundle's hash and the code's.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    pins = [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]
    tag = f"{NAME}:{digest[:16]}-{code_fingerprint(pins)[:8]}"
    try:
        return str(bentoml.bentos.get(tag).tag)
    except NotFound:
        pass
    with tempfile.TemporaryDirectory(prefix="bento-") as context:
        for file in _code():
            copy = Path(context) / file.relative_to(_project())
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
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


def code_fingerprint(pins: list[str]) -> str:
    """A hash of the code and the requirements that a Bento is made of."""
    return fingerprint([(file.relative_to(_project()).as_posix(), file_hash(file)) for file in _code()], pins)


def remove_unused(models: set[str], bentos: set[str]) -> None:
    """Remove stored models and Bentos of ours but those named and the NUM_RETAINED newest others.

    Args:
        models: tags of models that must stay.
        bentos: tags of Bentos that must stay.
    """
    import bentoml

    for found, named, delete in (
        (bentoml.bentos.list(NAME), bentos, bentoml.bentos.delete),
        (bentoml.models.list(NAME), models, bentoml.models.delete),
    ):
        others = [entry for entry in found if str(entry.tag) not in named]
        for old in sorted(others, key=lambda entry: entry.creation_time, reverse=True)[NUM_RETAINED:]:
            delete(old.tag)


def _code() -> list[Path]:
    """The files of our packages that the service needs."""
    return [
        path
        for package in PACKAGES
        for suffix in CODE
        for path in sorted((_project() / package).rglob(f"*{suffix}"))
        if not any(part.startswith(".") for part in path.relative_to(_project()).parts)
    ]


def _project() -> Path:
    return Path(__file__).resolve().parents[2]
