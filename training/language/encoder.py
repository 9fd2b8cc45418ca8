"""The pretrained language model: texts in, one vector of length 1 each out.

Encoders (BERT's family) and decoders (GPT's family) are read in the same way. Instead of a layer's own weights, an
adapter's may learn. A text's vector is made of the last layer's token vectors: their mean (Reimers & Gurevych 2019,
"Sentence-BERT", section 3), the first one (BERT's [CLS]) or the last one (all that a decoder has read).

By hand: lower layers may be frozen. What they say of a text never changes then, so it is computed once and cached,
and training pays for the upper layers alone: 35 processor seconds instead of 60 for 23 steps of 48 texts and reading
512 texts of 38 tokens before and after (MiniLM, top 2 of 6 layers), which is over 15 s of a default fit. No library
runs half of a `transformers` model, so the other layers' `forward` is replaced for a while.

Shapes: B texts, L tokens, E width of the model.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expectations.errors import BundleError, SettingError
from training.language.adapters import (
    ADALORA,
    Adapter,
    add_adapter,
    allocate_ranks,
    check_adapter_setting,
    load_adapter,
    orthogonal_penalty,
    prefix_length,
    save_adapter,
    saved_kind,
)
from training.language.pretrained import read_pretrained

MEAN, FIRST, LAST = "mean", "first", "last"
MAX_CHARACTERS_PER_TOKEN = 20  # in any language; what lies beyond would be tokenised to be cut off


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of texts, one after the other, without padding."""

    ids: Tensor  # (all tokens,) int64
    offsets: Tensor  # (texts + 1,) where each text begins

    @property
    def lengths(self) -> Tensor:
        """(texts,) number of tokens."""
        return self.offsets[1:] - self.offsets[:-1]


class TextEncoder(nn.Module):
    """A transformer with its tokenizer; its upper layers learn, the lower ones are frozen.

    Args:
        model: a `transformers` model without a head.
        tokenizer: its tokenizer.
        max_tokens: longer texts are cut.
        trainable_layers: top layers that learn; -1: everything; 0: nothing.
        pooling: "mean", "first" or "last".
        adapter: what learns in those layers instead of their own weights; a prefix learns before all layers.
        saved: folder of the model, where an adapter lies beside it, to be read with it.

    Raises:
        SettingError: the settings do not fit the model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_tokens: int,
        trainable_layers: int,
        pooling: str = MEAN,
        adapter: Adapter | None = None,
        saved: Path | None = None,
    ) -> None:
        super().__init__()
        check_adapter_setting(adapter, trainable_layers, saved)
        self.model, self.tokenizer, self.pooling = model, tokenizer, pooling
        self.width = int(model.config.hidden_size)
        self.is_trainable = trainable_layers != 0
        self.layers = layers_of(model)
        if not self.layers and trainable_layers > 0:
            raise SettingError(
                f"trainable_layers is {trainable_layers}, but the layers of {type(model).__name__} cannot be "
                "found; set it to -1 (all) or 0 (none)"
            )
        self.num_layers = len(self.layers)
        self.num_frozen = max(self.num_layers - trainable_layers, 0) if trainable_layers >= 0 else 0
        model.config.use_cache = False  # of decoders, for writing texts
        learning = self.layers[self.num_frozen :]
        self.adapted: Any = None
        if saved is not None:
            self.adapted = load_adapter(model, saved, learning, adapter)
        elif adapter is not None:
            self.adapted = add_adapter(model, learning, adapter)
        if adapter is None:
            self._set_trainable(trainable_layers)
        self.has_prefix = prefix_length(self.adapted) > 0
        # Read in one piece, never in two: a prefix, and models whose layers cannot be run apart.
        self.reads_whole = self.has_prefix or not (
            0 < self.num_frozen < self.num_layers and self._can_be_split()
        )
        self._has_ranks = adapter is not None and adapter.kind == ADALORA
        self.max_tokens = min(max_tokens, self._max_positions())

    def _set_trainable(self, trainable_layers: int) -> None:
        self.model.requires_grad_(trainable_layers == -1)
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler.requires_grad_(False)  # not read
        for layer in self.layers[self.num_frozen :] if trainable_layers > 0 else []:
            layer.requires_grad_(True)

    def _max_positions(self) -> int:
        most = int(getattr(self.model.config, "max_position_embeddings", 0) or 10**9)
        before = prefix_length(self.adapted)
        if before >= most:
            raise SettingError(
                f"adapter_rank is {before}, but the model has {most} positions; choose a shorter prefix"
            )
        return min(most - before, int(getattr(self.tokenizer, "model_max_length", most)))

    @classmethod
    def load(cls, name: str, **settings: Any) -> "TextEncoder":
        """Load by "package:…", "hub:…" or folder; `settings` are the constructor's.

        Raises:
            SettingError: there is no such model, or it cannot be used with these settings.
        """
        model, tokenizer, place = read_pretrained(name)
        return cls(model, tokenizer, saved=place if saved_kind(place) else None, **settings).eval()

    def save(self, folder: Path) -> None:
        """Write config, safetensors weights and tokenizer: an adapter's merged, or beside them."""
        model, weights = self.model, None
        if self.has_prefix or self.adapted is model:
            weights = save_adapter(self.adapted, model, folder)
        elif self.adapted is not None:
            model = copy.deepcopy(self.adapted).merge_and_unload()
        model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids, each text cut to `max_tokens`; an empty text has the model's marker tokens alone."""
        # Halves of surrogate pairs, which some JSON holds, are no characters.
        short = [
            text[: self.max_tokens * MAX_CHARACTERS_PER_TOKEN].encode("utf-8", "replace").decode("utf-8")
            for text in texts
        ]
        read = (
            self.tokenizer(short, truncation=True, max_length=self.max_tokens) if short else {"input_ids": []}
        )
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        nothing = next((mark for mark in marks if mark is not None), 0)
        lists = [ids or [nothing] for ids in read["input_ids"]]
        lengths = torch.tensor([0, *(len(ids) for ids in lists)])
        flat = torch.tensor([token for ids in lists for token in ids], dtype=torch.long)
        return Tokens(ids=flat, offsets=lengths.cumsum(0))

    def train(self, mode: bool = True) -> "TextEncoder":
        """As in any module, but what is frozen below the layers that learn stays in reading mode."""
        super().train(mode)
        if mode and not self.reads_whole:
            self.model.eval()
            for layer in self.layers[self.num_frozen :]:
                layer.train()
        return self

    def forward_frozen(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """What the frozen layers make of tokens, (B, L, E)."""
        seen: list[Tensor] = []

        def record(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            seen.append(hidden)
            return hidden

        with _replaced_forward(self.layers[self.num_frozen :], record):
            self.model(input_ids=ids_BL, attention_mask=mask_BL)
        return seen[0]

    def forward_trainable(self, hidden_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """From the frozen layers' output to vectors of length 1, (B, E)."""
        with _replaced_forward(self.layers[: self.num_frozen], lambda *_, **__: hidden_BLE):
            output = self.model(inputs_embeds=hidden_BLE, attention_mask=mask_BL)
        return pool(output.last_hidden_state, mask_BL, self.pooling)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """From tokens to vectors of length 1, (B, E); absent tokens are at each row's end."""
        return pool(self.hidden(ids_BL, mask_BL), mask_BL, self.pooling)

    def hidden(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """What the last layer makes of tokens, (B, L, E)."""
        model = self.adapted if self.has_prefix else self.model
        return model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state

    def allocate_ranks(self, fraction: float) -> None:
        """After an optimizer's step, gradients in place; `fraction`: of all planned steps that are over."""
        if self._has_ranks:
            allocate_ranks(self.adapted, fraction)

    def orthogonal_penalty(self) -> Tensor | float:
        """What the adapter adds to the loss."""
        return orthogonal_penalty(self.adapted) if self._has_ranks else 0.0

    def parameters_by_depth(self, decay: float) -> dict[float, list[nn.Parameter]]:
        """The parameters that learn, by their share of the learning rate: decay^(layers above).

        Raises:
            SettingError: a decay, and the model's layers cannot be found.
        """
        if decay != 1 and not self.layers:
            raise SettingError(
                f"layerwise_decay is {decay}, but the layers of {type(self.model).__name__} cannot be found; "
                "set it to 1"
            )
        depth = {
            id(parameter): self.num_layers - 1 - number
            for number, layer in enumerate(self.layers)
            for parameter in layer.parameters()
        }
        below = {id(parameter) for parameter in self.model.get_input_embeddings().parameters()}
        found: dict[float, list[nn.Parameter]] = {}
        above = self.num_layers  # embeddings come before the layers, what comes after is the top's
        for parameter in self.parameters():
            if id(parameter) in depth:
                above = 0
            if parameter.requires_grad:
                own = self.num_layers if id(parameter) in below else depth.get(id(parameter), above)
                found.setdefault(decay**own, []).append(parameter)
        return found

    @torch.no_grad()
    def _can_be_split(self) -> bool:
        """Whether lower and upper layers, run one after the other, give what the whole model gives."""
        was_training = self.training
        self.eval()
        ids, mask = torch.tensor([[1, 2, 3], [3, 2, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
        try:
            in_two = self.forward_trainable(self.forward_frozen(ids, mask), mask)
            same = torch.allclose(self(ids, mask), in_two, atol=1e-4)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
            same = False  # layers that are called in another way: read the model in one piece
        super().train(was_training)
        return same


def pool(hidden_BLE: Tensor, mask_BL: Tensor, pooling: str = MEAN) -> Tensor:
    """One vector of each text's tokens, (B, E), brought to length 1; in float32."""
    hidden_BLE = hidden_BLE.float()
    if pooling == MEAN:
        mask = mask_BL[:, :, None].float()
        vector = (hidden_BLE * mask).sum(1) / mask.sum(1).clamp_min(1)
    elif pooling == FIRST:
        vector = hidden_BLE[:, 0]
    else:
        last = (mask_BL.sum(1) - 1).clamp_min(0)
        vector = hidden_BLE[torch.arange(len(last), device=last.device), last]
    return nn.functional.normalize(vector, dim=1)


def layers_of(model: Any) -> list[nn.Module]:
    """The model's layers from bottom to top; none where they cannot be told from other modules."""
    number = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return list(module)
    return []


@contextmanager
def _replaced_forward(layers: Sequence[nn.Module], forward: Callable[..., Tensor]) -> Iterator[None]:
    try:
        for layer in layers:
            layer.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def load_saved(folder: Path, *, max_tokens: int, pooling: str) -> TextEncoder:
    """The encoder of a bundle, for reading only.

    Raises:
        BundleError: it cannot be loaded.
    """
    try:
        return TextEncoder.load(str(folder), max_tokens=max_tokens, trainable_layers=0, pooling=pooling)
    except SettingError as error:
        raise BundleError(f"{folder} cannot be loaded ({error}); train again") from error
