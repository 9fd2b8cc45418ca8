"""Writing a bundle: everything that serving needs, hashed, under the name of its hash."""

import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file
from torch import Tensor

from expectations.contracts.bundle import Manifest, hash_files, write_manifest
from expectations.contracts.examples import TEXT_SCHEMA
from expectations.errors import TransientError
from expectations.storage.atomic import write_json
from training.config.recipe import Recipe
from training.data.dataset import Examples
from training.data.sampling import blocks, rows_of
from training.data.split import TEST, TRAIN, VALIDATION
from training.data.transforms import Transforms
from training.language.text_embeddings import TextEmbeddings
from training.models.additive import AdditiveModel
from training.models.boosted_trees import import_lightgbm

MODEL, ENCODER, TRANSFORMS, RECIPE = "model.safetensors", "encoder", "transforms.json", "recipe.json"
TEXTS, EMBEDDINGS = "texts.parquet", "embeddings.safetensors"
TREES, TREES_STATE = "boosted_trees", "trees._extra_state"  # a folder of LightGBM's texts, not of tensors
# The same texts' vectors before fine-tuning: what evaluation compares with.
PRETRAINED_EMBEDDINGS = "pretrained_embeddings.safetensors"
# The weights of f and g as they were then: the same model with the language model frozen.
FROZEN_MODEL = "frozen_model.safetensors"
PACKAGES = ("torch", "transformers", "peft", "safetensors", "numpy", "pandas", "pyarrow", "scikit-learn")


def write_bundle(
    out: Path,
    *,
    recipe: Recipe,
    data: Examples,
    model: AdditiveModel,
    table: TextEmbeddings,
    transforms: Transforms,
    pretrained_vectors: Tensor,
    frozen_model: Mapping[str, Tensor],
    metrics: Mapping[str, Any],
    champion: str | None = None,
    parent: str | None = None,
    consecutive_warm_starts: int = 0,
) -> tuple[Path, str]:
    """Write a bundle into `out/<its hash>`.

    `pretrained_vectors` are the texts' vectors (T, E) and `frozen_model` the weights of f and g before fine-tuning.

    `champion` is the hash of the bundle whose weights the fit started from, the `consecutive_warm_starts`-th in a
    row to do so; `parent` that of the bundle whose test part this one has learned from too.

    Returns:
        The folder and the hash.

    Raises:
        TransientError: it could not be written (disk full); nothing is left behind.
    """
    folder: Path | None = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out, prefix=".writing-"))
        _write_files(folder, recipe, data, model, table, transforms)
        save_file({"vectors": pretrained_vectors.cpu().contiguous()}, folder / PRETRAINED_EMBEDDINGS)
        save_file(dict(frozen_model), folder / FROZEN_MODEL)
        until = learned_until(data) if parent is None else data.schema.horizon
        manifest = _manifest(folder, recipe, data, metrics, until)
        manifest = replace(manifest, champion=champion, parent=parent)
        digest = write_manifest(folder, replace(manifest, consecutive_warm_starts=consecutive_warm_starts))
        target = out / digest
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    except OSError as error:
        raise TransientError(
            f"bundle in {out} cannot be written ({error}); free disk space and run again"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return target, digest


def weights_of(model: AdditiveModel) -> dict[str, Tensor]:
    """A copy of all weights of f and g but the trees, which have a file format of their own."""
    weights = {name: tensor.cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    del weights[TREES_STATE]
    return weights


def known_texts(bundle: Path) -> dict[str, int]:
    """Place of each text whose vectors a bundle holds."""
    texts = pq.read_table(bundle / TEXTS).column("text").to_pylist()
    return {text: place for place, text in reversed(list(enumerate(texts)))}


def _write_files(
    folder: Path,
    recipe: Recipe,
    data: Examples,
    model: AdditiveModel,
    table: TextEmbeddings,
    transforms: Transforms,
) -> None:
    save_file(weights_of(model), folder / MODEL)
    (folder / TREES).mkdir()
    for number, text in enumerate(model.trees.texts):
        (folder / TREES / f"{number:02}.txt").write_text(text, encoding="utf-8")
    table.encoder.save(folder / ENCODER)
    transforms.write(folder / TRANSFORMS)
    write_json(folder / RECIPE, recipe.as_dict())
    ids = pa.array(np.arange(len(data.texts)), type=pa.int32())
    pq.write_table(pa.table([ids, pa.array(data.texts, pa.string())], schema=TEXT_SCHEMA), folder / TEXTS)
    save_file({"vectors": table.vectors.cpu().contiguous()}, folder / EMBEDDINGS)


def _manifest(
    folder: Path, recipe: Recipe, data: Examples, metrics: Mapping[str, Any], until: Any
) -> Manifest:
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return Manifest(
        source=data.schema.source,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipe.as_dict(),
        data={
            "fingerprint": data.schema.fingerprint,
            "learned_until": pd.Timestamp(until).isoformat(),
            **{p: _part(data, p) for p in (TRAIN, VALIDATION, TEST)},
        },
        feature_service=data.schema.feature_service,
        numeric=list(data.schema.numeric),
        categorical=list(data.schema.categorical),
        metrics=dict(metrics),
        versions=versions,
        files=hash_files(folder),
        left_out=left_out(recipe),
    )


def left_out(recipe: Recipe) -> list[str]:
    """What a recipe asks for and packages that are not installed would give, a sentence each."""
    if recipe.tabular_model.boosting_models > 0 and import_lightgbm() is None:
        return ["the tabular model is without boosted trees: they need LightGBM (pip install lightgbm)"]
    return []


def learned_until(data: Examples) -> Any:
    """The event timestamp before which lies all that a fit may learn from: the test part's first, or the data's end."""
    first, _ = _span(data, rows_of(data.part, TEST))
    return data.schema.horizon if first is None else first


def _part(data: Examples, part: str) -> dict[str, Any]:
    rows = rows_of(data.part, part)
    first, last = _span(data, rows)
    return {
        "num_rows": len(rows),
        "num_positive": int((data.columns["label"][rows] > 0).sum()),
        "from": None if first is None else pd.Timestamp(first).isoformat(),
        "to": None if last is None else pd.Timestamp(last).isoformat(),
    }


def _span(data: Examples, rows: np.ndarray) -> tuple[Any, Any]:
    """First and last event timestamp of some rows, None where there are none; block by block, as rows may be many."""
    timestamps = [data.columns.at("event_timestamp", block) for block in blocks(rows) if len(block)]
    return min((part.min() for part in timestamps), default=None), max(
        (part.max() for part in timestamps), default=None
    )
