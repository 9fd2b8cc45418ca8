"""The pretrained language model: texts in, one vector of length 1 each out.

Encoders (BERT's family) and decoders (GPT's family) are read in the same way. Lower layers may be frozen: what
they say of a text never changes then, so it is computed once and kept, and a training step pays for the upper
layers alone. Instead of a layer's own weights, an adapter's may learn.

Shapes: B texts, L tokens, E width of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expectations.errors import BundleError, SettingError
from training.language.adapters import (
    ADALORA,
    AdaLoraRankAllocator,
    Adapter,
    add_adapter,
    check_adapter_setting,
    merge_adapter,
)
from training.language.layers import identity, layers_of, replaced_forwards
from training.language.pooling import MEAN, pool
from training.language.prefix import FOLDER, load_prefix, prefix_length, save_prefix
from training.language.pretrained import read_pretrained

MAX_CHARACTERS_PER_TOKEN = (
    20  # a token has fewer in any language; what lies beyond would be tokenised to be cut off
)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of texts, one after the other, without padding.

    Attributes:
        ids: (all tokens,) int64.
        offsets: (texts + 1,) where each text begins.
    """

    ids: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """(texts,) number of tokens."""
        return self.offsets[1:] - self.offsets[:-1]


class TextEncoder(nn.Module):
    """A transformer with its tokenizer; `upper` layers learn, `lower` layers are frozen.

    Args:
        model: a `transformers` model without a head.
        tokenizer: its tokenizer.
        max_tokens: longer texts are cut.
        trainable_layers: top layers that learn; -1: everything; 0: nothing.
        pooling: "mean", "first" or "last".
        adapter: what learns in those layers instead of their own weights; a prefix learns before all layers.
        prefix: folder of a model that was saved with a prefix, to be read with it.

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
        prefix: Path | None = None,
    ) -> None:
        super().__init__()
        check_adapter_setting(adapter, trainable_layers, prefix)
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
        self.adapted = _adapted(model, self.layers[self.num_frozen :], adapter, prefix)
        if adapter is None:
            self._set_trainable(trainable_layers)
        self.has_prefix = self.adapted is not None and prefix_length(self.adapted) > 0
        # Read in one piece, never in two: a prefix, and models whose layers cannot be run apart.
        self.reads_in_one_piece = self.has_prefix or not (
            0 < self.num_frozen < self.num_layers and self._can_be_split()
        )
        self.rank_allocator = (
            AdaLoraRankAllocator(self.adapted) if adapter and adapter.kind == ADALORA else None
        )
        self.max_tokens = min(max_tokens, self._max_positions())

    def _set_trainable(self, trainable_layers: int) -> None:
        self.model.requires_grad_(trainable_layers == -1)
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler.requires_grad_(False)  # not read
        for layer in self.layers[self.num_frozen :] if trainable_layers > 0 else []:
            layer.requires_grad_(True)

    def _max_positions(self) -> int:
        most = int(getattr(self.model.config, "max_position_embeddings", 0) or 10**9)
        before = prefix_length(self.adapted) if self.has_prefix else 0
        if before >= most:
            raise SettingError(
                f"adapter_rank is {before}, but the model has {most} positions; choose a shorter prefix"
            )
        return min(most - before, int(getattr(self.tokenizer, "model_max_length", most)))

    @classmethod
    def load(
        cls,
        name: str,
        *,
        max_tokens: int,
        trainable_layers: int,
        pooling: str = MEAN,
        adapter: Adapter | None = None,
    ) -> "TextEncoder":
        """Load by "package:…", "hub:…" or folder.

        Raises:
            SettingError: there is no such model, or it cannot be used with these settings.
        """
        model, tokenizer, place = read_pretrained(name)
        return cls(
            model,
            tokenizer,
            max_tokens=max_tokens,
            trainable_layers=trainable_layers,
            pooling=pooling,
            adapter=adapter,
            prefix=place if (place / FOLDER).is_dir() else None,
        ).eval()

    def save(self, folder: Path) -> None:
        """Write config, safetensors weights and tokenizer: an adapter's weights merged, a prefix beside them."""
        if self.has_prefix:
            save_prefix(self.adapted, folder)
        model = self.model if self.adapted is None or self.has_prefix else merge_adapter(self.adapted)
        model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids, each text cut to `max_tokens`; an empty text has the model's marker tokens alone."""
        # Halves of surrogate pairs, which some JSON holds, are no characters.
        short = [
            text[: self.max_tokens * MAX_CHARACTERS_PER_TOKEN].encode("utf-8", "replace").decode("utf-8")
            for text in texts
        ]
        lists = (
            self.tokenizer(short, truncation=True, max_length=self.max_tokens)["input_ids"] if short else []
        )
        marks = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        nothing = next((mark for mark in marks if mark is not None), 0)
        lists = [ids or [nothing] for ids in lists]
        lengths = torch.tensor([0, *(len(ids) for ids in lists)])
        flat = torch.tensor([token for ids in lists for token in ids], dtype=torch.long)
        return Tokens(ids=flat, offsets=lengths.cumsum(0))

    def train(self, mode: bool = True) -> "TextEncoder":
        """As in any module, but what is frozen below the layers that learn stays in reading mode."""
        super().train(mode)
        if mode and not self.reads_in_one_piece:
            self.model.eval()
            for layer in self.layers[self.num_frozen :]:
                layer.train()
        return self

    def forward_frozen(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """What the frozen layers make of tokens, (B, L, E)."""
        seen: list[Tensor] = []

        def note(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            seen.append(hidden)
            return hidden

        rest = self.num_layers - self.num_frozen - 1
        with replaced_forwards(self.layers[self.num_frozen :], [note, *[identity] * rest]):
            self.model(input_ids=ids_BL, attention_mask=mask_BL)
        return seen[0]

    def forward_trainable(self, hidden_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """From the frozen layers' output to vectors of length 1, (B, E)."""

        def begin(*_: Any, **__: Any) -> Tensor:
            return hidden_BLE

        with replaced_forwards(self.layers[: self.num_frozen], [begin, *[identity] * (self.num_frozen - 1)]):
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
        """After an optimizer's step, gradients in place; `share`: share of all planned steps that are over."""
        if self.rank_allocator is not None:
            self.rank_allocator.step(fraction)

    def orthogonal_penalty(self) -> Tensor | float:
        """What the adapter adds to the loss."""
        return self.rank_allocator.orthogonal_penalty() if self.rank_allocator is not None else 0.0

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
            same = torch.allclose(
                self(ids, mask), self.forward_trainable(self.forward_frozen(ids, mask), mask), atol=1e-4
            )
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
            same = False  # layers that are called in another way: read the model in one piece
        super().train(was_training)
        return same


def _adapted(model: Any, layers: Sequence[nn.Module], adapter: Adapter | None, prefix: Path | None) -> Any:
    """The model with its adapter, new or from its folder; None without any."""
    if prefix is not None:
        return load_prefix(model, prefix, learns=adapter is not None)
    return add_adapter(model, layers, adapter) if adapter is not None else None


def load_saved(folder: Path, *, max_tokens: int, pooling: str) -> TextEncoder:
    """The encoder of a bundle, for reading only.

    Raises:
        BundleError: it cannot be loaded.
    """
    try:
        return TextEncoder.load(str(folder), max_tokens=max_tokens, trainable_layers=0, pooling=pooling)
    except SettingError as error:
        raise BundleError(f"{folder} cannot be loaded ({error}); train again") from error
