"""Tiny language models of several families with random weights, each in a folder with its tokenizer."""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from training.language.adapters import Adapter
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings

FAMILIES = ("bert", "roberta", "gpt2", "llama", "qwen3")
DECODERS = ("gpt2", "llama", "qwen3")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
CHINESE = ("优惠券可以买咖啡和茶，满五十元减十元", "这本书很好看", "快递太慢了，差评！")
TEXTS = ["coupon for dog food", "a", "", "frozen pizza and garden flowers, 3 for 2", "tea"]


def load(
    name: str | Path, trainable_layers: int = 0, *, kind: str | None = None, seed: int = 3, **settings: Any
) -> TextEncoder:
    """A language model of short texts, with an adapter of rank 4 where a kind is given."""
    adapter = None if kind is None else Adapter(kind=kind, rank=4, seed=seed)
    settings = {"max_tokens": 32, "adapter": adapter, **settings}
    return TextEncoder.load(str(name), trainable_layers=trainable_layers, **settings)


def read(
    encoder: TextEncoder, texts: Sequence[str] = TEXTS, *, batch: int = 16, cached: bool = False
) -> Tensor:
    """Vectors of texts; `cached`: by way of the frozen layers' cached output."""
    table = TextEmbeddings(encoder, list(texts), batch=batch)
    if cached:
        table.cache_frozen_layers()
    table.refresh()
    return table.vectors


def write_model(folder: Path, family: str) -> Path:
    """A model of a family; decoders' tokenizers read bytes, have no pad token and pad on the left."""
    import torch
    import transformers

    tokenizer = _byte_tokenizer() if family in DECODERS else _letter_tokenizer()
    size = {**SIZES, "vocab_size": len(tokenizer)}
    grouped = {**size, "num_key_value_heads": 2}
    configs = {
        "bert": lambda: transformers.BertConfig(**size),
        "roberta": lambda: transformers.RobertaConfig(**size, pad_token_id=0),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_positions=80
        ),
        "llama": lambda: transformers.LlamaConfig(**grouped),
        "qwen3": lambda: transformers.Qwen3Config(**grouped, head_dim=8),
    }
    torch.manual_seed(1)
    transformers.AutoModel.from_config(configs[family]()).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _letter_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|end|>"]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", padding_side="left")


def write_chinese_bert(folder: Path) -> Path:
    """The files that bert-base-chinese has: vocab.txt, weights with the pretraining heads under older names."""
    import json

    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted({character for text in CHINESE for character in text})
    tokens = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *string.ascii_lowercase]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    settings = {"do_lower_case": False, "model_max_length": 80}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(2)
    config = transformers.BertConfig(**SIZES, vocab_size=len(tokens))
    transformers.BertForPreTraining(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in weights.items()
    }
    save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
