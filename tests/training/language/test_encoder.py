"""The language model: families, pooling, layers read in two pieces, odd texts, models that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from expectations.errors import BundleError, SettingError
from tests.training.language_models import (
    CHINESE,
    DECODERS,
    FAMILIES,
    TEXTS,
    load,
    read,
    write_chinese_bert,
    write_model,
)
from training.language.encoder import load_saved, pool
from training.language.text_embeddings import TextEmbeddings, drop_tokens

ODD = [
    "",
    " \n\t ",
    "x" * 10_000,
    "word " * 2_000,
    "🎉🛒👩‍👩‍👧 50% off 🎁",
    "优惠券 for кофе و قهوة ½ ﬁ é",
    "half a pair \ud83d of surrogates",
    "nul \x00 and bell \x07",
]


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_reads_the_same_alone_and_beside_longer_ones(
    family: str, pooling: str, models: dict[str, str]
) -> None:
    encoder = load(models[family], pooling=pooling)
    together = read(encoder)
    assert together.isfinite().all() and together.norm(dim=1).sub(1).abs().max() < 1e-5
    torch.testing.assert_close(read(encoder, batch=1), together, atol=1e-5, rtol=0)


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]], [[0.0, 2.0], [2.0, 0.0], [0.0, 2.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    half = 0.5**0.5
    torch.testing.assert_close(pool(hidden, mask, "mean")[0], torch.tensor([half, half]))
    torch.testing.assert_close(pool(hidden, mask, "first"), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(pool(hidden, mask, "last"), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_is_its_last_token_as_transformers_reads_it(family: str, models: dict[str, str]) -> None:
    from transformers import AutoModel

    encoder = load(models[family], pooling="last")
    own = AutoModel.from_pretrained(models[family]).eval()
    for text, vector in zip(TEXTS, read(encoder), strict=True):
        ids = encoder.tokenizer(text)["input_ids"] or [encoder.tokenizer.eos_token_id]
        with torch.no_grad():
            last = own(input_ids=torch.tensor([ids[:32]])).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, last / last.norm(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_in_two_pieces_are_the_whole(family: str, models: dict[str, str]) -> None:
    encoder = load(models[family], 1, pooling="last")
    assert not encoder.reads_whole and encoder.num_frozen == 2
    torch.testing.assert_close(read(encoder, cached=True), read(encoder), atol=1e-5, rtol=0)
    learning = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert learning and all(".2." in name for name in learning)
    table = TextEmbeddings(encoder, TEXTS, batch=16)
    table.cache_frozen_layers()
    encoder.train()
    table.encode(np.arange(len(TEXTS)))[:, 0].sum().backward()
    assert all(value.grad is not None for value in encoder.layers[2].parameters())


def test_what_is_frozen_below_stays_in_reading_mode(models: dict[str, str]) -> None:
    encoder = load(models["bert"], 1).train()
    training = {name for name, module in encoder.model.named_modules() if module.training}
    assert "encoder.layer.2.attention.self" in training
    assert all(name.startswith("encoder.layer.2") for name in training)
    assert not any(module.training for module in encoder.eval().modules())


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_all_layers_and_the_embeddings_learn(family: str, models: dict[str, str]) -> None:
    encoder = load(models[family], -1)
    frozen = {name for name, value in encoder.named_parameters() if not value.requires_grad}
    assert all("pooler" in name for name in frozen)
    encoder(torch.tensor([[5, 6]]), torch.tensor([[1, 1]]))[:, 0].sum().backward()
    assert all(value.grad is not None for value in encoder.parameters() if value.requires_grad)


@pytest.mark.parametrize("family", FAMILIES)
def test_rates_fall_with_depth(family: str, models: dict[str, str]) -> None:
    encoder = load(models[family], -1)
    everything = [value for value in encoder.parameters() if value.requires_grad]
    assert [*encoder.parameters_by_depth(1.0)] == [1.0]
    assert [id(value) for value in encoder.parameters_by_depth(1.0)[1.0]] == [
        id(value) for value in everything
    ]
    groups = encoder.parameters_by_depth(0.5)
    assert sorted(groups) == [0.125, 0.25, 0.5, 1.0]
    assert sum(len(values) for values in groups.values()) == len(everything)
    multiplier = {id(value): number for number, values in groups.items() for value in values}
    for number, layer in enumerate(encoder.layers):
        assert {multiplier[id(value)] for value in layer.parameters()} == {0.5 ** (2 - number)}
    assert multiplier[id(encoder.model.get_input_embeddings().weight)] == 0.125


def test_a_decoders_last_norm_has_the_top_layers_rate(models: dict[str, str]) -> None:
    encoder = load(models["llama"], -1)
    assert any(value is encoder.model.norm.weight for value in encoder.parameters_by_depth(0.5)[1.0])


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_texts_have_finite_vectors(family: str, models: dict[str, str]) -> None:
    encoder = load(models[family], 1)
    assert int(encoder.tokenize(ODD).lengths.max()) == 32
    assert int(encoder.tokenize(ODD).lengths.min()) >= 1
    vectors = read(encoder, ODD, cached=True)
    assert vectors.isfinite().all() and vectors.norm(dim=1).sub(1).abs().max() < 1e-5


def test_no_text_is_longer_than_the_model_reads(models: dict[str, str]) -> None:
    assert load(models["gpt2"], max_tokens=1000).max_tokens == 80
    assert read(load(models["gpt2"], max_tokens=1000), ["x" * 500]).isfinite().all()


def test_a_tokenizer_of_another_model_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(models["bert"]).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(models["gpt2"]).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"ids up to 256.*76 rows"):
        load(tmp_path)
    with pytest.raises(BundleError, match="76 rows"):
        load_saved(tmp_path, max_tokens=32, pooling="mean")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("nan", r"encoder.layer.1.output.dense.weight hold values that are no numbers"),
        ("missing", r"1 weights are missing, encoder.layer.1.output.dense.weight"),
        ("shape", "cannot be loaded"),
        ("config", "cannot be loaded"),
        ("file", "cannot be loaded"),
    ],
)
def test_weights_that_cannot_be_right_are_refused(change: str, expected: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", "bert")
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    if change == "nan":
        weights[name][3, 4] = float("nan")
    elif change == "missing":
        del weights[name]
    elif change == "shape":
        weights[name] = weights[name][:, :7].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if change == "config":
        (folder / "config.json").write_text("{}", encoding="utf-8")
    if change == "file":
        (folder / "model.safetensors").unlink()
    with pytest.raises(SettingError, match=expected):
        load(folder, 1)


@pytest.mark.parametrize("name", ["/no/such/folder", "package:no_such_package_x"])
def test_an_encoder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(SettingError, match=r"no_such|/no/such"):
        load(name)


def test_layers_that_cannot_be_found_are_not_trained_apart(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertModel, AutoTokenizer

    AutoTokenizer.from_pretrained(write_model(tmp_path / "bert", "bert")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    AlbertModel(AlbertConfig(vocab_size=76, embedding_size=16, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="layers of AlbertModel cannot be found"):
        load(tmp_path, 1)
    whole = load(tmp_path, -1)
    assert whole.reads_whole and read(whole).isfinite().all()
    with pytest.raises(SettingError, match=r"layerwise_decay is 0\.9"):
        whole.parameters_by_depth(0.9)


def test_files_like_those_of_bert_base_chinese(tmp_path: Path) -> None:
    from transformers import BertForPreTraining

    folder = write_chinese_bert(tmp_path / "bert-base-chinese")
    encoder = load(folder, 1, pooling="first")
    tokens = encoder.tokenize([CHINESE[1], "Q 优惠券"])
    assert tokens.lengths.tolist() == [len(CHINESE[1]) + 2, 6]  # a character is a token, with [CLS] and [SEP]
    unknown, ids = encoder.tokenizer.unk_token_id, tokens.ids.tolist()
    assert unknown not in ids[: len(CHINESE[1]) + 2] and ids[len(CHINESE[1]) + 3] == unknown
    vectors = read(encoder, CHINESE, cached=True)
    own = BertForPreTraining.from_pretrained(folder).eval().bert
    with torch.no_grad():
        cls = own(**encoder.tokenizer(CHINESE[1], return_tensors="pt")).last_hidden_state[0, 0]
    torch.testing.assert_close(vectors[1], cls / cls.norm(), atol=1e-5, rtol=0)
    encoder.save(tmp_path / "saved")
    again = load_saved(tmp_path / "saved", max_tokens=32, pooling="first")
    torch.testing.assert_close(read(again, CHINESE), vectors, atol=1e-5, rtol=0)


def test_a_hub_id_is_found_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "models--bert-base-chinese"
    write_chinese_bert(cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert read(load("hub:bert-base-chinese"), CHINESE).isfinite().all()
    with pytest.raises(SettingError, match="hub:bert-base-klingon"):
        load("hub:bert-base-klingon")


def test_a_fraction_of_the_tokens_is_left_out_and_the_ends_stay() -> None:
    lengths = torch.tensor([1, 2, 3, 400])
    steps = torch.arange(400)
    mask = (steps[None, :] < lengths[:, None]).long()
    offsets = torch.tensor([0, 1, 3, 6])
    places = torch.where(mask > 0, offsets[:, None] + steps, offsets[:, None])
    torch.manual_seed(0)
    left, there = drop_tokens(places, mask, 0.3)
    assert left.shape == there.shape == (4, int(there.sum(1).max())) and 250 < left.shape[1] < 310
    for row in range(4):
        remaining = left[row][there[row] > 0]
        assert (
            (remaining.diff() > 0).all()
            and remaining[0] == places[row, 0]
            and remaining[-1] == offsets[row] + lengths[row] - 1
        )
        assert (left[row][there[row] == 0] == offsets[row]).all()


@pytest.mark.parametrize("layers", [1, -1])
def test_tokens_are_left_out_only_where_the_model_learns(models: dict[str, str], layers: int) -> None:
    encoder = load(models[FAMILIES[0]], layers)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    texts = [*TEXTS, "frozen pizza " * 12]
    table = TextEmbeddings(encoder, texts, batch=3, token_dropout=0.5)
    table.cache_frozen_layers()
    table.refresh()
    torch.testing.assert_close(table.vectors, read(encoder, texts), atol=1e-5, rtol=0)
    encoder.train()
    long = table.encode(np.array([5])).detach()
    assert not torch.allclose(long, table.vectors[5:], atol=1e-4)
    torch.testing.assert_close(torch.linalg.norm(long), torch.tensor(1.0))


@pytest.mark.parametrize("layers", [1, -1])
def test_vectors_read_in_bf16_are_float32_and_near(layers: int, models: dict[str, str]) -> None:
    """With the CPU's autocast, whose lists of operations are those of a GPU where it matters here."""
    encoder = load(models["bert"], layers)
    table = TextEmbeddings(encoder, TEXTS, batch=2)
    table.cache_frozen_layers()
    table.refresh()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = table.gather(np.arange(4), np.array([1, 3]))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, table.vectors[:4], atol=0.02, rtol=0)
    assert not torch.equal(vectors[1], table.vectors[1])  # it was read again, in bf16
    vectors[1].sum().backward()
    gradients = [value.grad for value in encoder.parameters() if value.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
