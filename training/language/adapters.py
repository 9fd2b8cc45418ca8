"""Adapters: a few new weights learn, and the language model's own stay as they are (package `peft`).

| kind | what is new | weights at export |
|---|---|---|
| lora | a product of two thin matrices beside every linear layer (Hu et al. 2021) | merged |
| adalora | the same with singular values; the least important fall away (Zhang et al. 2023) | merged |
| ia3 | a factor for each key, value and inner feed-forward unit (Liu et al. 2022) | merged |
| prefix | keys and values that every layer sees before the text (Li & Liang 2021) | beside the model |
| bottleneck | a narrow network after every layer (Houlsby et al. 2019; Pfeiffer et al. 2021) | beside the model |

By hand: the bottleneck, which `peft` has not, and AdaLoRA's orthogonality penalty, which `peft` adds to the loss of
models that return one. What lies beside the model is in the folder `adapter` of its folder and is read with it.
"""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expectations.errors import SettingError

LORA, ADALORA, PREFIX, IA3, BOTTLENECK = "lora", "adalora", "prefix", "ia3", "bottleneck"
NONE = "none"
NAME = "default"  # peft's name of the one adapter
ALPHA_PER_RANK = 2.0  # what LoRA's product counts beside the layer's own
INITIAL_RANK_FACTOR = 1.5  # AdaLoRA begins with as many times the rank it ends with
PREFIX_INIT_STD = 0.02  # deviation of a new prefix: it hardly changes what the model says
TOTAL_STEP, T_INIT, LAST_ALLOCATION = 1000, 100, 700  # AdaLoRA: a fit; ranks begin to fall; are final
FOLDER, BOTTLENECK_FILE = "adapter", "bottleneck.safetensors"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Which adapter, and how large."""

    kind: str
    rank: int  # of LoRA and AdaLoRA; number of tokens of a prefix; width of a bottleneck
    seed: int  # of its first weights


def saved_kind(folder: Path) -> str | None:
    """The kind of adapter that lies beside the model in `folder`; None without any."""
    if (folder / FOLDER / BOTTLENECK_FILE).is_file():
        return BOTTLENECK
    return PREFIX if (folder / FOLDER).is_dir() else None


def check_adapter_setting(adapter: Adapter | None, trainable_layers: int, saved: Path | None) -> None:
    """Refuse what does not fit the layers that learn, or the adapter that lies beside the model in `saved`.

    Raises:
        SettingError: it does not.
    """
    if adapter is None:
        return
    if trainable_layers == 0:
        raise SettingError(
            f"adapter is {adapter.kind!r}, but trainable_layers is 0; set it to the number of layers that get "
            "one, -1 for all"
        )
    if adapter.kind == PREFIX and trainable_layers != -1:
        raise SettingError(
            f"adapter is 'prefix', which goes before all layers, but trainable_layers is {trainable_layers}; "
            "set it to -1"
        )
    if saved is not None and adapter.kind != saved_kind(saved):
        raise SettingError(
            f"the encoder in {saved} has a {saved_kind(saved)}, and adapter is {adapter.kind!r}; "
            f"choose {saved_kind(saved)} or none, or another encoder"
        )


def add_adapter(model: Any, layers: Sequence[nn.Module], adapter: Adapter) -> Any:
    """Put a new adapter into some layers of a model; a prefix goes before all of them.

    Args:
        model: a `transformers` model; it is changed, and only the adapter's weights need gradients then.
        layers: layers of the model.
        adapter: what to put in.

    Returns:
        The model wrapped by `peft`; with a bottleneck the model itself.

    Raises:
        SettingError: the adapter is not known for this family of models.
    """
    peft = importlib.import_module("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(adapter.seed)
        if adapter.kind == BOTTLENECK:
            return _add_bottlenecks(model, layers, adapter.rank)
        try:
            adapted = peft.get_peft_model(model, _config(peft, model, layers, adapter), adapter_name=NAME)
        except (ValueError, TypeError, AttributeError) as error:
            raise SettingError(
                f"adapter {adapter.kind!r} does not fit {type(model).__name__} ({error}); choose another"
            ) from error
    if adapter.kind == PREFIX:
        with torch.no_grad():
            adapted.prompt_encoder[NAME].embedding.weight.mul_(PREFIX_INIT_STD)
    return adapted


def _config(peft: Any, model: Any, layers: Sequence[nn.Module], adapter: Adapter) -> Any:
    common: dict[str, Any] = {"task_type": "FEATURE_EXTRACTION"}
    if adapter.kind == PREFIX:
        return peft.PrefixTuningConfig(num_virtual_tokens=adapter.rank, **common)
    own = set(layers)
    names = [re.escape(name) for name, module in model.named_modules() if module in own]
    common["exclude_modules"] = rf"(?!({'|'.join(names)})\.).*"
    # GPT-2's linear layers hold their weights the other way round.
    common["fan_in_fan_out"] = any(type(one).__name__ == "Conv1D" for one in model.modules())
    if adapter.kind == IA3:
        return peft.IA3Config(**common)
    common["target_modules"] = "all-linear"
    if adapter.kind == LORA:
        return peft.LoraConfig(r=adapter.rank, lora_alpha=ALPHA_PER_RANK * adapter.rank, **common)
    first = max(round(INITIAL_RANK_FACTOR * adapter.rank), adapter.rank + 1)
    steps = {"total_step": TOTAL_STEP, "tinit": T_INIT, "tfinal": TOTAL_STEP - LAST_ALLOCATION}
    return peft.AdaLoraConfig(
        init_r=first, target_r=adapter.rank, lora_alpha=ALPHA_PER_RANK * first, **steps, **common
    )


def save_adapter(adapted: Any, model: Any, folder: Path) -> dict[str, Tensor]:
    """Write a prefix or bottleneck beside the model; returns the weights that are the model's own."""
    place = folder / FOLDER
    if adapted is model:
        place.mkdir(parents=True, exist_ok=True)
        weights = model.state_dict()
        inside = {name: value.contiguous() for name, value in weights.items() if f".{BOTTLENECK}." in name}
        save_file(inside, place / BOTTLENECK_FILE)
        return {name: value for name, value in weights.items() if name not in inside}
    adapted.peft_config[NAME].base_model_name_or_path = ".."  # the folder above
    adapted.save_pretrained(place, save_embedding_layers=False)
    (place / "README.md").unlink()  # an empty model card
    return model.state_dict()


def load_adapter(model: Any, folder: Path, layers: Sequence[nn.Module], adapter: Adapter | None) -> Any:
    """The model with the adapter that lies beside it; nothing else needs gradients then.

    Args:
        model: as it lies in `folder`.
        folder: the model's folder.
        layers: layers that learn.
        adapter: what learns in them; None: the saved adapter is only read.

    Raises:
        SettingError: the adapter cannot be read or is another model's.
    """
    peft = importlib.import_module("peft")
    try:
        if saved_kind(folder) == PREFIX:
            adapted = peft.PeftModel.from_pretrained(model, folder / FOLDER, adapter_name=NAME)
            adapted.prompt_encoder.requires_grad_(adapter is not None)
            return adapted
        weights = load_file(folder / FOLDER / BOTTLENECK_FILE)
        for name, module in list(model.named_modules()):
            down = weights.get(f"{name}.{BOTTLENECK}.down.weight")
            if down is not None:
                _add_bottlenecks(model, [module], len(down))
        _, unexpected = model.load_state_dict(weights, strict=False)
        if unexpected:
            raise KeyError(unexpected[0])
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise SettingError(
            f"the {saved_kind(folder)} in {folder / FOLDER} cannot be used with the model in {folder} "
            f"({str(error).splitlines()[0]}); name another encoder"
        ) from error
    model.requires_grad_(False)
    return add_adapter(model, layers, adapter) if adapter else model


def prefix_length(adapted: Any) -> int:
    """Tokens that an adapter puts before every text."""
    config = getattr(adapted, "peft_config", {}).get(NAME)
    return int(getattr(config, "num_virtual_tokens", None) or 0)


class Bottleneck(nn.Module):
    """What a layer says, plus a narrow network's correction of it; a new one corrects nothing.

    Args:
        width: of a token's vector.
        rank: of the narrow network.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_BLE: Tensor) -> Tensor:
        """The corrected vectors, (B, L, E)."""
        return hidden_BLE + self.up(nn.functional.gelu(self.down(hidden_BLE)))


def _add_bottlenecks(model: Any, layers: Sequence[nn.Module], rank: int) -> Any:
    """A bottleneck after each layer that has none; those of `layers` alone need gradients."""
    if not layers:
        raise SettingError(
            f"adapter is {BOTTLENECK!r}, but the layers of {type(model).__name__} cannot be found; choose another"
        )
    model.requires_grad_(False)
    for layer in layers:
        if not hasattr(layer, BOTTLENECK):
            layer.add_module(BOTTLENECK, Bottleneck(model.config.hidden_size, rank))
            layer.register_forward_hook(_through_bottleneck)
        getattr(layer, BOTTLENECK).requires_grad_(True)
    return model


def _through_bottleneck(layer: Any, _inputs: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return layer.bottleneck(output)
    return (layer.bottleneck(output[0]), *output[1:])


@torch.no_grad()
def allocate_ranks(adapted: Any, fraction: float) -> None:
    """After an optimizer's step, its gradients in place: AdaLoRA weighs its ranks and drops the least important.

    The importances are not in any checkpoint. After a resume they are those of the steps since (peft averages over
    about seven), so other ranks may stay than in a fit without a break, but as many.

    Args:
        adapted: a model with an AdaLoRA adapter.
        fraction: fraction of all planned steps that are over; at 0 it begins anew.
    """
    tuner, config = adapted.base_model, adapted.peft_config[NAME]
    allocator, step = tuner.rankallocator, int(fraction * TOTAL_STEP)
    if step == 0:
        allocator.reset_ipt()
        config.rank_pattern = None
    elif step >= LAST_ALLOCATION:
        # At the last allocation peft forgets the importances.
        is_final = config.rank_pattern is not None and not allocator.exp_avg_ipt
        step = TOTAL_STEP if is_final else LAST_ALLOCATION
        if not (is_final or allocator.exp_avg_ipt):
            allocator.update_ipt(tuner.model)
    tuner.update_and_allocate(step)


def orthogonal_penalty(adapted: Any) -> Tensor:
    """How far AdaLoRA's thin matrices are from orthogonal (Zhang et al. 2023, equation 4), times its weight."""
    deviations = []
    for name, value in adapted.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = value @ value.T if "lora_A" in name else value.T @ value
            deviations.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
    return adapted.peft_config[NAME].orth_reg_weight * torch.stack(deviations).mean()
