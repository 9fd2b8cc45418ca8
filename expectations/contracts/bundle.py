"""A trained model as a folder: files, their hashes, and the manifest that says what it is.

bundle/
├── manifest.json         Manifest; the bundle's hash is the SHA-256 of this file
├── model.safetensors     the additive model's own weights
├── boosted_trees/        the trees of g, each model as LightGBM's own text
├── encoder/              the language model: config, safetensors, tokenizer; a prefix or bottleneck in adapter/
├── transforms.json       statistics fitted on the training part
└── …                     whatever else the manifest lists
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expectations.errors import BundleError
from expectations.storage.atomic import write_json
from expectations.storage.hashes import file_hash

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle is made of and from.

    Attributes:
        format: version of the bundle's layout.
        source: name of the source it was trained on.
        created_at: ISO 8601, UTC.
        recipe: the whole recipe, seeds included.
        data: fingerprint, row and positive counts by part, the parts' borders in time, and `learned_until`:
            all that the weights have learned from lies before it.
        feature_service: Feast feature services that serving must read.
        numeric, categorical: feature columns in the order the model takes them.
        metrics: figures on the validation part.
        versions: versions of Python and of the packages that made it.
        files: relative path -> SHA-256 of every other file of the bundle.
        champion: hash of the bundle whose weights the fit started from; None: it started from scratch.
        parent: hash of the evaluated bundle, whose test part this one has learned from too; None: it is one itself.
        consecutive_warm_starts: how many fits in a row, this one the last of them, started from a champion.
        left_out: what the recipe asks for and a package that was not installed would have given, a sentence each.
    """

    format: int = FORMAT
    source: str
    created_at: str
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    feature_service: str
    numeric: Sequence[str]
    categorical: Sequence[str]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, str]
    champion: str | None = None
    parent: str | None = None
    consecutive_warm_starts: int = 0
    left_out: Sequence[str] = ()


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder but its manifest, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in paths
        if path.relative_to(folder).as_posix() != MANIFEST
    }


def write_manifest(folder: Path, manifest: Manifest) -> str:
    """Write the manifest and return the bundle's hash."""
    write_json(folder / MANIFEST, asdict(manifest))
    return bundle_hash(folder)


def bundle_hash(folder: Path) -> str:
    """The bundle's hash: SHA-256 of its manifest, which holds the hashes of all other files."""
    try:
        return file_hash(folder / MANIFEST)
    except FileNotFoundError:
        raise BundleError(f"{folder} has no {MANIFEST}: not a model bundle; train again") from None


def verify_bundle(folder: Path) -> tuple[Manifest, str]:
    """Read a bundle's manifest after comparing every file with its hash.

    Returns:
        The manifest and the bundle's hash.

    Raises:
        BundleError: no manifest, an unknown format, or a file is missing, altered or not listed.
    """
    digest = bundle_hash(folder)
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read ({error}); train again") from error
    if manifest.format != FORMAT:
        raise BundleError(
            f"{folder} has bundle format {manifest.format}, this version reads {FORMAT}; train again"
        )
    found = hash_files(folder)
    for name, expected in manifest.files.items():
        if name not in found:
            raise BundleError(f"{folder}: {name} is missing; copy the bundle again or train again")
        if found[name] != expected:
            raise BundleError(
                f"{folder}: {name} was altered after training; copy the bundle again or train again"
            )
    unlisted = sorted(set(found) - set(manifest.files))
    if unlisted:
        raise BundleError(f"{folder}: {unlisted[0]} is not in the manifest; remove it or train again")
    return manifest, digest
