"""A prefix on disk, beside the model that sees it before every text.

A prefix is no change of any weight, so it cannot be merged: it lies in the folder `adapter` of the model's
folder, and is read with it.
"""

import copy
import importlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from expectations.errors import SettingError
from training.language.adapters import NAME

FOLDER, WEIGHTS = "adapter", "adapter_model.safetensors"


def save_prefix(adapted: Any, folder: Path) -> None:
    """Write a prefix beside the model that is saved in `folder`."""
    peft = importlib.import_module("peft")
    place = folder / FOLDER
    config = copy.deepcopy(adapted.peft_config[NAME])
    config.base_model_name_or_path = None  # it lies in the folder above
    config.inference_mode = True
    config.save_pretrained(place)
    tensors = peft.get_peft_model_state_dict(adapted, adapter_name=NAME)
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(flat, place / WEIGHTS)


def load_prefix(model: Any, folder: Path, *, learns: bool) -> Any:
    """The model wrapped with the prefix that lies in its folder; nothing else needs gradients then.

    Raises:
        SettingError: the prefix cannot be read or is another model's.
    """
    peft = importlib.import_module("peft")
    try:
        config = peft.PeftConfig.from_pretrained(folder / FOLDER)
        config.inference_mode = not learns
        adapted = peft.get_peft_model(model, config, adapter_name=NAME)
        peft.set_peft_model_state_dict(adapted, load_file(folder / FOLDER / WEIGHTS), adapter_name=NAME)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise SettingError(
            f"the prefix in {folder / FOLDER} cannot be used with the model in {folder} "
            f"({str(error).splitlines()[0]}); name another encoder"
        ) from error
    adapted.requires_grad_(False)
    adapted.prompt_encoder.requires_grad_(learns)
    return adapted


def prefix_length(adapted: Any) -> int:
    """Tokens that an adapter puts before every text."""
    return int(getattr(adapted.peft_config[NAME], "num_virtual_tokens", None) or 0)
