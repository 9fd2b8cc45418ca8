"""Adapters: a few new weights learn, and the language model's own stay as they are (package `peft`).

| kind | what is new | weights at export |
|---|---|---|
| lora | a product of two thin matrices beside every linear layer (Hu et al. 2021) | merged |
| adalora | the same with singular values; the least important fall away (Zhang et al. 2023) | merged |
| ia3 | a factor for each key, value and inner feed-forward unit (Liu et al. 2022) | merged |
| prefix | keys and values that every layer sees before the text (Li & Liang 2021) | beside the model |

How a prefix is saved and read is the matter of `training.language.prefix`.
"""

import copy
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expectations.errors import SettingError

LORA, ADALORA, PREFIX, IA3 = "lora", "adalora", "prefix", "ia3"
NONE = "none"
NAME = "default"
ALPHA_PER_RANK = 2.0  # what LoRA's product counts beside the layer's own
INITIAL_RANK_FACTOR = 1.5  # AdaLoRA begins with as many times the rank it ends with
PREFIX_INIT_STD = 0.02  # deviation of a new prefix: it hardly changes what the model says
TOTAL_STEP, T_INIT, LAST_ALLOCATION = (
    1000,
    100,
    700,
)  # AdaLoRA: all steps; where ranks begin to fall, where they are final


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Which adapter, and how large.

    Attributes:
        kind: "lora", "adalora", "prefix" or "ia3".
        rank: of LoRA and AdaLoRA; number of tokens of a prefix.
        seed: of its first weights.
    """

    kind: str
    rank: int
    seed: int


def check_adapter_setting(adapter: Adapter | None, trainable_layers: int, prefix: Path | None) -> None:
    """Whether an adapter fits the layers that learn, and the model that it is put into.

    Args:
        adapter: what is to learn; None: the layers' own weights.
        trainable_layers: top layers that learn; -1: everything; 0: nothing.
        prefix: folder of the model, where it was saved with a prefix.

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
    if adapter.kind != PREFIX and prefix is not None:
        raise SettingError(
            f"the encoder in {prefix} has a prefix, and adapter is {adapter.kind!r}; "
            "choose prefix or none, or another encoder"
        )


def add_adapter(model: Any, layers: Sequence[nn.Module], adapter: Adapter) -> Any:
    """Put a new adapter into some layers of a model; a prefix goes before all of them.

    Args:
        model: a `transformers` model; it is changed, and only the adapter's weights need gradients then.
        layers: layers of the model.
        adapter: what to put in.

    Returns:
        The model wrapped by `peft`.

    Raises:
        SettingError: the adapter is not known for this family of models.
    """
    peft = importlib.import_module("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(adapter.seed)
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
    linear = _linear_names(model, layers)
    common["fan_in_fan_out"] = any(_is_conv1d(module) for module in _modules(layers))
    if adapter.kind == LORA:
        alpha = ALPHA_PER_RANK * adapter.rank
        return peft.LoraConfig(r=adapter.rank, lora_alpha=alpha, target_modules=linear, **common)
    if adapter.kind == ADALORA:
        first = max(round(INITIAL_RANK_FACTOR * adapter.rank), adapter.rank + 1)
        return peft.AdaLoraConfig(
            init_r=first,
            target_r=adapter.rank,
            lora_alpha=ALPHA_PER_RANK * first,
            total_step=TOTAL_STEP,
            tinit=T_INIT,
            tfinal=TOTAL_STEP - LAST_ALLOCATION,
            deltaT=1,
            target_modules=linear,
            **common,
        )
    scaled, inner = _ia3_names(model, linear)
    return peft.IA3Config(target_modules=scaled, feedforward_modules=inner, **common)


def _modules(layers: Sequence[nn.Module]) -> list[nn.Module]:
    return [module for layer in layers for module in layer.modules()]


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layers hold their weights the other way round."""
    return type(module).__name__ == "Conv1D"


def _linear_names(model: nn.Module, layers: Sequence[nn.Module]) -> list[str]:
    inside = {id(module) for module in _modules(layers)}
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and (isinstance(module, nn.Linear) or _is_conv1d(module))
    ]


def _ia3_names(model: Any, linear: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of some linear layers IA³ scales, and at which of them the input."""
    constants = importlib.import_module("peft.utils.constants")
    family = model.config.model_type
    scaled: Mapping[str, list[str]] = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    inner: Mapping[str, list[str]] = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    if family not in scaled or family not in inner:
        raise SettingError(
            f"adapter 'ia3' is not known for models of type {family!r}; choose lora, or one of "
            f"{', '.join(sorted(set(scaled) & set(inner)))}"
        )

    def named(ends: Sequence[str]) -> list[str]:
        return [name for name in linear if any(name.endswith(f".{end}") for end in ends)]

    return named(scaled[family]), named(inner[family])


def merge_adapter(adapted: Any) -> Any:
    """A copy of the model with the adapter's weights added to its own."""
    return copy.deepcopy(adapted).merge_and_unload()


class AdaLoraRankAllocator(nn.Module):
    """AdaLoRA's choice of ranks, the state of which is kept in buffers: a checkpoint holds it.

    Args:
        adapted: a model with an AdaLoRA adapter.
    """

    is_final: Tensor

    def __init__(self, adapted: Any) -> None:
        super().__init__()
        tuner = adapted.base_model
        self._allocator = tuner.rankallocator
        self._config = adapted.peft_config[NAME]
        self._values = {name: value for name, value in tuner.model.named_parameters() if "lora_" in name}
        self._model = [tuner.model]  # in a list: its parameters are not this module's
        self.register_buffer("is_final", torch.tensor(False))
        for name, value in self._values.items():
            for kind in ("importance", "uncertainty"):
                self.register_buffer(_buffer(kind, name), torch.zeros_like(value))
            if "lora_E" in name:
                self.register_buffer(_buffer("retained", name), torch.ones_like(value))

    @torch.no_grad()
    def step(self, fraction: float) -> None:
        """After an optimizer's step, its gradients still in place: weigh the ranks, drop the least important.

        Args:
            fraction: fraction of all planned steps that are over.
        """
        if self.is_final:
            for name, value in self._values.items():
                if "lora_E" in name:
                    value.mul_(self.get_buffer(_buffer("retained", name)))
            return
        self._allocator.ipt = {name: torch.zeros_like(value) for name, value in self._values.items()}
        self._allocator.exp_avg_ipt = self._state("importance")
        self._allocator.exp_avg_unc = self._state("uncertainty")
        final = fraction * TOTAL_STEP >= LAST_ALLOCATION
        step = LAST_ALLOCATION if final else int(fraction * TOTAL_STEP)
        _, rank_pattern = self._allocator.update_and_allocate(self._model[0], step, force_mask=final)
        if final:
            self.is_final.fill_(True)
            for name, retained in rank_pattern.items():
                self.get_buffer(_buffer("retained", name)).copy_(torch.tensor(retained)[:, None])
        for kind in ("exp_avg_ipt", "exp_avg_unc"):
            buffers = self._state("importance" if kind == "exp_avg_ipt" else "uncertainty")
            for name, value in getattr(self._allocator, kind).items():
                buffers[name].copy_(value)

    def _state(self, kind: str) -> dict[str, Tensor]:
        return {name: self.get_buffer(_buffer(kind, name)) for name in self._values}

    def orthogonal_penalty(self) -> Tensor:
        """How far the thin matrices are from orthogonal (Zhang et al. 2023, equation 4), times its weight."""
        deviations = []
        for name, value in self._values.items():
            if "lora_E" not in name:
                gram = value @ value.T if "lora_A" in name else value.T @ value
                deviations.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        return self._config.orth_reg_weight * torch.stack(deviations).mean()


def _buffer(kind: str, name: str) -> str:
    return f"{kind}/{name.replace('.', '/')}"
