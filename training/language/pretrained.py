"""Reading a pretrained language model and its tokenizer, and refusing what cannot be right."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from expectations.errors import SettingError

PACKAGE, HUB = "package:", "hub:"


def read_pretrained(name: str) -> tuple[Any, Any, Path]:
    """Read by "package:…", "hub:…" or folder.

    Returns:
        A `transformers` model without a head, in float32, its tokenizer, and where they came from.

    Raises:
        SettingError: there is no such model, it cannot be read, weights are missing or no numbers, or the
            tokenizer is another model's.
    """
    transformers, place, local = _load_transformers(), _place(name), not name.startswith(HUB)
    try:
        model, found = transformers.AutoModel.from_pretrained(
            place,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=local,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=local)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise SettingError(
            f"encoder {name!r} cannot be loaded ({str(error).splitlines()[0]}); "
            "name a folder with config.json, safetensors weights and a tokenizer"
        ) from error
    _check_weights(name, model, found["missing_keys"])
    _check_tokenizer(name, model, tokenizer)
    return model, tokenizer, Path(place)


def _check_weights(name: str, model: Any, missing: Sequence[str]) -> None:
    lacking = sorted(key for key in missing if not key.startswith("pooler."))  # the pooler is not read
    if lacking:
        raise SettingError(
            f"encoder {name!r}: {len(lacking)} weights are missing, {lacking[0]} among them; its config.json "
            "describes another model, or the file is incomplete"
        )
    for key, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise SettingError(
                f"encoder {name!r}: weights {key} hold values that are no numbers; take an earlier copy"
            )


def _check_tokenizer(name: str, model: Any, tokenizer: Any) -> None:
    rows = int(model.get_input_embeddings().num_embeddings)
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if needed > rows:
        raise SettingError(
            f"encoder {name!r}: its tokenizer has token ids up to {needed - 1}, but its embedding matrix has "
            f"{rows} rows; use the tokenizer that the model was trained with"
        )


def _place(name: str) -> str:
    if name.startswith(PACKAGE):
        package = name.removeprefix(PACKAGE)
        try:
            return str(importlib.import_module(package).get_model_path())
        except (ImportError, AttributeError) as error:
            raise SettingError(
                f"encoder {name!r}: no such model package ({error}); pip install {package.replace('_', '-')} "
                "or name a folder"
            ) from error
    if name.startswith(HUB):
        return name.removeprefix(HUB)
    if not (Path(name) / "config.json").is_file():
        raise SettingError(
            f"encoder {name!r}: {Path(name) / 'config.json'} does not exist; name a model folder, "
            "package:<name> or hub:<id>"
        )
    return name


def _load_transformers() -> Any:
    """The package `transformers`, silent."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
