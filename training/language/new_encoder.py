"""A small language model from nothing: a vocabulary taken from texts, and random weights.

For languages that no pretrained model at hand reads. What is written is what a pretrained model's folder holds
(config.json, model.safetensors, tokenizer), so a recipe names it as `encoder` and `language_epochs` teaches it
the language from the same texts.

Two vocabularies, both trained by `transformers`. `wordpiece`: as BERT's, Chinese character by character. `bpe`:
frequent strings of up to MAX_TOKEN_LENGTH characters (byte-pair encoding, Sennrich et al. 2016), within a clause
where nothing is put between words: half as many tokens a Chinese text.

Where `semantic_embeddings` is set, only the layers are random: a token's vector says in which texts it occurs
(latent semantic analysis, Deerwester et al. 1990), so tokens that go together are similar before anything is
learned. It takes seconds, and few labels go further than from random vectors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expectations.errors import DataError, SettingError, TransientError

BPE, WORDPIECE = "bpe", "wordpiece"
SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
HEAD_WIDTH = 32  # of one attention head
MAX_TOKEN_LENGTH = 6  # characters
MIN_FREQUENCY = 2  # of two tokens beside each other that become one
SEMANTIC_RMS = 0.05  # root mean square of a token's vector where it has a meaning; random ones have 0.02


def write_new_encoder(
    out: Path,
    texts: Sequence[str],
    *,
    tokenizer: str,
    vocabulary: int,
    layers: int,
    width: int,
    max_tokens: int,
    seed: int,
    semantic_embeddings: bool = False,
) -> Path:
    """Write a BERT with random weights and the vocabulary of some texts.

    Args:
        out: folder to write, made if it is not there.
        texts: the texts that the vocabulary is taken from; none of them may be of a test part.
        tokenizer: "bpe" or "wordpiece".
        vocabulary: most entries of the vocabulary; the least frequent ones are left out.
        layers: number of layers.
        width: of a token's vector, a multiple of HEAD_WIDTH.
        max_tokens: of the longest text that it can read.
        seed: of the weights.
        semantic_embeddings: whether the tokens' vectors come from the texts in which they occur.

    Returns:
        `out`.

    Raises:
        SettingError: a size or the kind of vocabulary is not possible.
        DataError: the texts hold no character.
        TransientError: the folder cannot be written.
    """
    if tokenizer not in (BPE, WORDPIECE):
        raise SettingError(f"tokenizer is {tokenizer!r}; choose one of {BPE}, {WORDPIECE}")
    if width < HEAD_WIDTH or width % HEAD_WIDTH:
        raise SettingError(f"width is {width}; choose a multiple of {HEAD_WIDTH}")
    if layers < 1 or max_tokens < len(SPECIAL_TOKENS) or vocabulary <= len(SPECIAL_TOKENS):
        raise SettingError(
            f"layers {layers}, max_tokens {max_tokens}, vocabulary {vocabulary}: a model needs a layer, and "
            f"at least {len(SPECIAL_TOKENS)} tokens and more entries than that"
        )
    if not any(text.strip() for text in texts):
        raise DataError(f"none of the {len(texts)} texts holds a character; bring texts of items")
    try:
        out.mkdir(parents=True, exist_ok=True)
        trained = _trained_tokenizer(tokenizer, texts, vocabulary)
        trained.save_pretrained(out)
        model = _random_model(trained, layers, width, max_tokens, seed)
        if semantic_embeddings:
            _set_semantic_embeddings(model, trained, texts, seed)
        model.save_pretrained(out)
    except OSError as error:
        raise TransientError(f"{out} cannot be written ({error}); free disk space or name another") from error
    return out


def _random_model(tokenizer: Any, layers: int, width: int, max_tokens: int, seed: int) -> Any:
    import torch
    from transformers import BertConfig, BertModel, logging

    logging.disable_progress_bar()
    config = BertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        max_position_embeddings=max_tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertModel(config)


def _trained_tokenizer(kind: str, texts: Sequence[str], vocabulary: int) -> Any:
    """BERT's tokenizer; or byte pairs between spaces, punctuation and digits, wide and large characters made one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertTokenizer, PreTrainedTokenizerFast

    base: Any = BertTokenizer()
    settings = {"min_frequency": MIN_FREQUENCY, "limit_alphabet": vocabulary, "show_progress": False}
    if kind == BPE:
        pairs = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS["unk"]))
        pairs.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        between = [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(True),
        ]
        pairs.pre_tokenizer = pre_tokenizers.Sequence(between)
        pairs.post_processor = base.backend_tokenizer.post_processor
        names = {f"{name}_token": token for name, token in SPECIAL_TOKENS.items()}
        base = PreTrainedTokenizerFast(tokenizer_object=pairs, **names)
        settings |= {"limit_alphabet": max(vocabulary // 2, 1), "max_token_length": MAX_TOKEN_LENGTH}
    return base.train_new_from_iterator(texts, vocabulary, **settings)


def _set_semantic_embeddings(model: Any, tokenizer: Any, texts: Sequence[str], seed: int) -> None:
    """Set the vectors of tokens that occur: left singular vectors of tokens by texts, all of one length."""
    import torch
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    from sklearn.utils.extmath import randomized_svd

    def tokens(text: str) -> list[int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [token for token in ids if token >= len(SPECIAL_TOKENS)]

    vocabulary = {token: token for token in range(len(tokenizer))}
    counts = CountVectorizer(analyzer=tokens, vocabulary=vocabulary).transform(texts)
    weights = model.get_input_embeddings().weight
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts).T
    used = min(weights.shape[1], *weighted.shape)
    directions, sizes, _ = randomized_svd(weighted, used, random_state=seed)
    vectors = torch.from_numpy(directions * sizes**0.5).to(weights.dtype)
    occurs = torch.from_numpy(counts.getnnz(axis=0) > 0)
    with torch.no_grad():
        length = SEMANTIC_RMS * weights.shape[1] ** 0.5
        weights[occurs, :used] = length * torch.nn.functional.normalize(vectors, dim=1)[occurs]
        weights[occurs, used:] = 0
