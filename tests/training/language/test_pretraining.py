"""Pretraining on texts alone: what it reads, what it learns, how it goes on after a kill; and new encoders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expectations.errors import DataError, SettingError
from tests.training.fits import goes_on, losses_of, run, weights_of
from tests.training.language_models import load, read
from tests.training.synthetic import make_rows, write_examples
from training.cli import main
from training.config.recipe import Recipe
from training.data.dataset import read_examples
from training.data.split import TRAIN
from training.inference.predictor import Predictor
from training.language.encoder import TextEncoder
from training.language.new_encoder import write_new_encoder
from training.language.pretraining import IGNORED, pretraining_objective, token_masking
from training.language.text_embeddings import TextEmbeddings
from training.pipeline.context import FitContext
from training.pipeline.fit import FitResult
from training.pipeline.pretraining import known_text_ids, language_pretraining_phase, length_batches
from training.runtime.checkpoint import trainable_state

CHINESE = ["房间很干净，服务也不错", "苹果坏了，差评！", "手机 iPhone14 很好👍", "ＡＢＣ wifi 太慢 😡", ""]
ODD = ["", "   ", "👍👍👍", "好" * 10_000, "Ａ wifi 信号 ، مرحبا", "e\u0301\u200d"]


def new_encoder(folder: Path, kind: str = "bpe", texts: list[str] | None = None, **sizes: Any) -> Path:
    chosen = {"vocabulary": 300, "layers": 2, "width": 32, "max_tokens": 48, "seed": 1, **sizes}
    return write_new_encoder(folder, texts or CHINESE * 3, tokenizer=kind, **chosen)


@pytest.fixture(name="known", scope="module")
def _known(recipe: Recipe, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe with a language model whose vocabulary is that of the examples."""
    folder = tmp_path_factory.mktemp("domain") / "encoder"
    new_encoder(folder, texts=[text for text in read_examples(examples).texts if text] * 3)
    steps = {"language_epochs": 2, "language_batch_size": 4, "language_learning_rate": 1e-2}
    return recipe.updated(encoder={"name": str(folder)}, pretraining=steps, tabular_model={"epochs": 2})


def phase_losses(
    recipe: Recipe, encoder: TextEncoder, texts: list[str], epochs: int, **settings: Any
) -> list[float]:
    """Each step's loss under a recipe with language pretraining, and these of its settings."""
    recipe = recipe.updated(pretraining={"language_epochs": 1, "language_learning_rate": 3e-3, **settings})
    table = TextEmbeddings(encoder, texts, batch=8)
    phase = language_pretraining_phase("language_pretraining", recipe, encoder, table, np.arange(len(texts)))
    return losses_of(phase, epochs)


def test_only_texts_known_before_the_validation_part_are_read(tmp_path: Path) -> None:
    """A text that is first shown, asked or bought from the validation part on teaches nothing before."""
    rows = make_rows(np.random.default_rng(0), 24, 12)
    rows.loc[(rows["event_timestamp"] >= "2020-01-07") & (rows["text_id"] == 3), "text_id"] = 16
    texts = [f"text {number}" for number in range(17)]
    data = read_examples(write_examples(tmp_path, rows=rows, texts=texts))
    known = set(known_text_ids(data))
    train = data.part == TRAIN
    shown = set(data.rows["text_id"][train]) | set(data.rows["query_id"][train]) - {-1}
    late = set(data.rows["text_id"][~train]) - shown
    assert late and not late & known
    assert shown <= known


def test_what_is_masked_is_a_label_and_nothing_else(tmp_path: Path) -> None:
    encoder = load(new_encoder(tmp_path), -1)
    torch.manual_seed(0)
    ids = torch.full((400, 12), 9)
    ids[:, 0], ids[:, -1] = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id
    mask = torch.ones_like(ids)
    ids[::2, 8:], mask[::2, 8:] = 9, 0
    inputs, labels = token_masking(encoder.tokenizer)(ids, mask)
    masked = labels != IGNORED
    assert (labels[masked] == 9).all() and 0.13 < masked[(mask > 0) & (ids == 9)].float().mean() < 0.17
    assert not (masked & ((mask == 0) | (ids != 9))).any()
    assert (inputs[~masked] == ids[~masked]).all()
    as_mask = (inputs[masked] == encoder.tokenizer.mask_token_id).float().mean()
    assert 0.76 < as_mask < 0.84


def test_a_batch_without_a_masked_token_has_no_loss(recipe: Recipe, tmp_path: Path) -> None:
    encoder = load(new_encoder(tmp_path), -1)
    objective = pretraining_objective("masked", encoder)
    objective.corrupt = lambda ids, _mask: (ids, torch.full_like(ids, IGNORED))
    ids = torch.tensor([[2, 9, 3]])
    loss = objective.loss(encoder, ids, torch.ones_like(ids))
    loss.backward()
    assert float(loss.detach()) == 0


def test_batches_are_of_one_length_and_hold_every_text_once() -> None:
    lengths = np.random.default_rng(1).integers(2, 60, 1000)
    batches = length_batches(np.arange(1000), lengths, 64, np.random.default_rng(2))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    read = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert read < 1.1 * lengths.sum() and max(map(len, batches)) <= 64
    assert [lengths[batch].max() for batch in batches] != sorted(lengths[batch].max() for batch in batches)


@pytest.mark.parametrize("objective", ["masked", "contrastive"])
def test_an_encoder_learns_the_language_of_the_texts(objective: str, recipe: Recipe, tmp_path: Path) -> None:
    texts = [
        f"{place}的{thing}很{kind}" for place in "京沪广深" for thing in "房店货书" for kind in "好坏大小"
    ]
    encoder = load(new_encoder(tmp_path, "wordpiece", texts), -1).train()
    torch.manual_seed(0)
    losses = phase_losses(recipe, encoder, texts, epochs=40, language_objective=objective)
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def decoder(folder: Path, num_tokens: int) -> TextEncoder:
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    config = GPT2Config(vocab_size=num_tokens, n_embd=32, n_layer=2, n_head=2, n_positions=48)
    texts = new_encoder(folder / "texts", "wordpiece")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(texts / "tokenizer.json"), pad_token="[PAD]")
    torch.manual_seed(0)
    return TextEncoder(GPT2Model(config), tokenizer, max_tokens=24, trainable_layers=-1)


def test_a_decoder_learns_what_comes_next_and_cannot_be_masked(recipe: Recipe, tmp_path: Path) -> None:
    gpt = decoder(tmp_path, 300)
    losses = phase_losses(recipe, gpt, CHINESE[:4], epochs=30, language_objective="causal")
    assert losses[-1] < 0.75 * losses[0]
    with pytest.raises(SettingError, match="reads forward only; choose 'causal' or 'contrastive'"):
        phase_losses(recipe, gpt, CHINESE, epochs=1, language_objective="masked")
    with pytest.raises(SettingError, match="both directions; choose 'masked' or 'contrastive'"):
        bert = load(new_encoder(tmp_path / "bert"), -1)
        phase_losses(recipe, bert, CHINESE, epochs=1, language_objective="causal")


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_an_adapter_learns_in_place_of_the_model(kind: str, recipe: Recipe, tmp_path: Path) -> None:
    encoder = load(new_encoder(tmp_path), -1, kind=kind)
    before = {name: value.detach().clone() for name, value in encoder.named_parameters()}
    phase_losses(recipe, encoder, CHINESE, epochs=3, language_learning_rate=1e-2)
    changed = {name for name, value in encoder.named_parameters() if not torch.equal(value, before[name])}
    learning = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert changed == learning and changed


def test_what_cannot_be_learned_from_is_said(recipe: Recipe, tmp_path: Path, encoder: Path) -> None:
    place = new_encoder(tmp_path)
    with pytest.raises(DataError, match="none of the 2 texts"):
        phase_losses(recipe, load(place, -1), ["", " "], epochs=1)
    with pytest.raises(SettingError, match="nothing of the language model learns"):
        phase_losses(recipe.updated(encoder={"trainable_layers": 0}), load(place), CHINESE, epochs=1)
    with pytest.raises(SettingError, match="no mask token"):
        phase_losses(recipe, load(encoder, -1), CHINESE, epochs=1)


def test_later_phases_and_the_refit_begin_with_what_the_phase_left(examples: Path, known: Recipe) -> None:
    data = read_examples(examples)
    fitted = FitContext(data, known)
    weights = {name: value + 0.1 for name, value in trainable_state({"encoder": fitted.encoder}).items()}
    before = fitted.table.vectors.clone()
    fitted.begin_with(weights)
    assert not torch.allclose(fitted.table.vectors, before)
    changed = fitted.table.vectors.clone()
    with torch.no_grad():
        next(value for value in fitted.encoder.parameters() if value.requires_grad).add_(1)
    fitted.table.refresh()
    fitted.fresh_model()
    assert torch.equal(fitted.table.vectors, changed)
    topics = fitted.model.text_model.topic_vectors(changed[torch.from_numpy(fitted.topic_ids)])
    assert torch.allclose(fitted.model.text_model.topics, topics)
    assert torch.equal(fitted.pretrained_vectors, before)


@pytest.fixture(name="learned_first", scope="module")
def _learned_first(examples: Path, known: Recipe, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return run(examples, known, tmp_path_factory.mktemp("learned"))


@pytest.mark.parametrize("epochs_before_the_kill", [1, 2, 5, 9])
def test_a_killed_run_goes_on_to_the_same_weights(
    epochs_before_the_kill: int, examples: Path, known: Recipe, learned_first: FitResult, tmp_path: Path
) -> None:
    phases = list(dict.fromkeys(entry["phase"] for entry in learned_first.history))
    assert (
        phases[:2] == ["language_pretraining", "next_interaction_pretraining"]
        and "language_pretraining refit" not in phases
    )
    result = goes_on(lambda: run(examples, known, tmp_path), killed_after=epochs_before_the_kill)
    assert result.history == learned_first.history
    assert weights_of(result) == weights_of(learned_first)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_odd_texts_are_read_by_a_new_encoder(kind: str, tmp_path: Path) -> None:
    encoder = load(new_encoder(tmp_path, kind), max_tokens=64)
    assert encoder.max_tokens == 48
    tokens = encoder.tokenize([*CHINESE, *ODD])
    assert (tokens.lengths >= 2).all() and tokens.lengths.max() == 48
    assert torch.isfinite(read(encoder, [*CHINESE, *ODD], batch=4)).all()
    known = encoder.tokenizer.convert_ids_to_tokens(encoder.tokenizer("很好👍 iphone")["input_ids"])
    assert "👍" in "".join(known) and "[UNK]" not in known


def test_byte_pairs_are_fewer_than_word_pieces(tmp_path: Path) -> None:
    texts = ["房间很干净服务也不错", "房间很干净", "服务也不错"] * 5
    places = (new_encoder(tmp_path / kind, kind, texts) for kind in ("bpe", "wordpiece"))
    lengths = [load(place).tokenize(texts).lengths.sum() for place in places]
    assert lengths[0] < 0.6 * lengths[1]


def test_a_new_encoder_is_the_same_for_the_same_seed_alone(tmp_path: Path) -> None:
    same = [new_encoder(tmp_path / name) / "model.safetensors" for name in "ab"]
    other = new_encoder(tmp_path / "c", seed=2) / "model.safetensors"
    assert same[0].read_bytes() == same[1].read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [({"width": 33}, "multiple"), ({"layers": 0}, "needs a layer"), ({"vocabulary": 5}, "more entries")],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], expected: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=expected):
        new_encoder(tmp_path / "encoder", **sizes)
    with pytest.raises(SettingError, match="choose one of"):
        new_encoder(tmp_path / "encoder", "letters")
    with pytest.raises(DataError, match="none of the 2 texts"):
        new_encoder(tmp_path / "encoder", texts=["", " "])


def test_the_command_makes_an_encoder_that_a_fit_reads(
    examples: Path, short: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "encoder"
    sizes = ["--layers", "1", "--width", "32", "--max-tokens", "24", "--vocabulary", "200"]
    assert main(["new-encoder", "--examples", str(examples), "--out", str(place), *sizes]) == 0
    assert str(place) in capsys.readouterr().out
    recipe = short.updated(encoder={"name": str(place)}, pretraining={"language_epochs": 1})
    result = run(examples, recipe, tmp_path)
    predictor = Predictor.load(result.bundle)
    data = read_examples(examples)
    scores = predictor.score(data.rows.head(len(ODD)), texts=ODD)
    assert np.isfinite(scores.probability).all()
    assert main(["new-encoder", "--examples", str(tmp_path), "--out", str(place)]) == 1


def test_tokens_of_the_same_texts_are_alike_before_anything_is_learned(tmp_path: Path) -> None:
    texts = ["苹果甜，香", "苹果香，甜", "手机快，新", "手机新，快"] * 3
    encoder = load(new_encoder(tmp_path, "wordpiece", texts, layers=1, width=64, semantic_embeddings=True))
    vectors = encoder.model.get_input_embeddings().weight.detach()
    sweet, apple, quick = (vectors[encoder.tokenizer.convert_tokens_to_ids(one)] for one in "甜果快")
    assert torch.isfinite(vectors).all()
    assert torch.cosine_similarity(sweet, apple, dim=0) > 0.9
    assert torch.cosine_similarity(sweet, quick, dim=0) < 0.5
