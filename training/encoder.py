"""The pretrained language model: texts in, one vector of length 1 each out.

The vector is the mean of the last layer's token vectors (Reimers & Gurevych 2019, "Sentence-BERT", section
3). Lower layers may be frozen: what they say of a text never changes then, so it is computed once and kept,
and a training step pays for the upper layers alone.

Shapes: B texts, L tokens, E width of the model.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expectations.contracts.errors import BundleError, SettingError

PACKAGE, HUB = "package:", "hub:"


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids of texts, one after the other, without padding.

    Attributes:
        ids: (all tokens,) int64.
        starts: (texts + 1,) where each text begins.
    """

    ids: Tensor
    starts: Tensor

    @property
    def lengths(self) -> Tensor:
        """(texts,) number of tokens."""
        return self.starts[1:] - self.starts[:-1]


class TextEncoder(nn.Module):
    """A transformer with its tokenizer; `upper` layers learn, `lower` layers are frozen."""

    def __init__(self, model: Any, tokenizer: Any, *, max_tokens: int, trainable_layers: int) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.width = int(model.config.hidden_size)
        layers = _layers(model)
        self.num_layers = len(layers)
        self.whole = trainable_layers == -1 or not layers  # read in one piece, never in two
        if not layers and trainable_layers > 0:
            raise SettingError(
                f"trainable_layers is {trainable_layers}, but the layers of {type(model).__name__} cannot be "
                "run apart; set it to -1 (all) or 0 (none)"
            )
        self.num_frozen = max(self.num_layers - max(trainable_layers, 0), 0)
        model.requires_grad_(trainable_layers == -1)
        for layer in list(layers)[self.num_frozen :] if trainable_layers > 0 else []:
            layer.requires_grad_(True)
        self.learns = trainable_layers != 0

    @classmethod
    def load(cls, name: str, *, max_tokens: int, trainable_layers: int) -> "TextEncoder":
        """Load by "package:…", "hub:…" or folder.

        Raises:
            SettingError: there is no such model, or it cannot be read.
        """
        transformers = _transformers(offline=not name.startswith(HUB))
        place = _place(name)
        try:
            model = transformers.AutoModel.from_pretrained(place, use_safetensors=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        except (OSError, ValueError, KeyError) as error:
            raise SettingError(
                f"encoder {name!r} cannot be loaded ({str(error).splitlines()[0]}); "
                "name a folder with config.json, safetensors weights and a tokenizer"
            ) from error
        most = int(getattr(model.config, "max_position_embeddings", max_tokens))
        return cls(
            model, tokenizer, max_tokens=min(max_tokens, most), trainable_layers=trainable_layers
        ).eval()

    def save(self, folder: Path) -> None:
        """Write config, safetensors weights and tokenizer."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Token ids, each text cut to `max_tokens`; an empty text has the model's marker tokens alone."""
        # Ten characters a token are more than any text needs; the rest would be tokenised to be cut off.
        short = [text[: self.max_tokens * 20] for text in texts]
        lists = (
            self.tokenizer(short, truncation=True, max_length=self.max_tokens)["input_ids"] if short else []
        )
        unknown = self.tokenizer.pad_token_id or 0
        lists = [ids or [unknown] for ids in lists]
        lengths = torch.tensor([0, *(len(ids) for ids in lists)])
        flat = torch.tensor([token for ids in lists for token in ids], dtype=torch.long)
        return Tokens(ids=flat, starts=lengths.cumsum(0))

    def lower(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """What the frozen layers make of tokens, (B, L, E)."""
        hidden = self.model.embeddings(input_ids=ids_BL)
        return self._run(hidden, mask_BL, 0, self.num_frozen)

    def upper(self, hidden_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """From the frozen layers' output to vectors of length 1, (B, E)."""
        return pool(self._run(hidden_BLE, mask_BL, self.num_frozen, self.num_layers), mask_BL)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """From tokens to vectors of length 1, (B, E)."""
        if not self.whole:
            return self.upper(self.lower(ids_BL, mask_BL), mask_BL)
        return pool(self.model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state, mask_BL)

    def _run(self, hidden: Tensor, mask_BL: Tensor, first: int, last: int) -> Tensor:
        bias = torch.zeros(mask_BL.shape, dtype=hidden.dtype, device=hidden.device)
        bias = bias.masked_fill(mask_BL == 0, torch.finfo(hidden.dtype).min)[:, None, None, :]
        for layer in list(self.model.encoder.layer)[first:last]:
            output = layer(hidden, bias)
            hidden = output if isinstance(output, Tensor) else output[0]
        return hidden


def pool(hidden_BLE: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over the tokens, brought to length 1; in float32."""
    mask = mask_BL[:, :, None].float()
    mean = (hidden_BLE.float() * mask).sum(1) / mask.sum(1).clamp_min(1)
    return nn.functional.normalize(mean, dim=1)


def _layers(model: Any) -> Sequence[nn.Module]:
    """The model's layers, if running them one by one gives what the whole model gives; else none."""
    layers = getattr(getattr(model, "encoder", None), "layer", None)
    if layers is None or not hasattr(model, "embeddings"):
        return ()
    ids = torch.tensor([[1, 2, 3], [3, 2, 1]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            whole = model(input_ids=ids, attention_mask=mask).last_hidden_state
            hidden = model.embeddings(input_ids=ids)
            bias = torch.zeros(2, 1, 1, 3).masked_fill(
                mask[:, None, None] == 0, torch.finfo(torch.float32).min
            )
            for layer in layers:
                output = layer(hidden, bias)
                hidden = output if isinstance(output, Tensor) else output[0]
        same = torch.allclose(whole[mask == 1], hidden[mask == 1], atol=1e-4)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        same = False  # another call signature: read the model in one piece
    model.train(was_training)
    return layers if same else ()


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


def _transformers(*, offline: bool) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    transformers = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def load_saved(folder: Path, *, max_tokens: int) -> TextEncoder:
    """The encoder of a bundle, for reading only.

    Raises:
        BundleError: it cannot be loaded.
    """
    try:
        return TextEncoder.load(str(folder), max_tokens=max_tokens, trainable_layers=0)
    except SettingError as error:
        raise BundleError(f"{folder} cannot be loaded ({error}); train again") from error
