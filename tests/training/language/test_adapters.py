"""Adapters: what learns, what is saved, AdaLoRA's ranks, and fits that are killed and go on."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expectations.errors import SettingError
from tests.training.fits import goes_on, run, weights_of
from tests.training.language_models import TEXTS, load, read, write_model
from training.config.recipe import Recipe
from training.config.settings import nested
from training.data.dataset import read_examples
from training.inference.predictor import Predictor
from training.language.encoder import TextEncoder, load_saved
from training.pipeline.context import FitContext
from training.pipeline.fit import FitResult
from training.pipeline.supervised import finetuning_phase
from training.runtime.checkpoint import restore, trainable_state

BESIDE = ("prefix", "bottleneck")  # what lies beside the model
KINDS = ("lora", "adalora", "ia3", *BESIDE)


def teach(encoder: TextEncoder, *, first: int = 0, last: int = 20, planned: int = 20) -> None:
    """Some steps towards vectors whose first number is large."""
    optimizer = torch.optim.AdamW([value for value in encoder.parameters() if value.requires_grad], lr=1e-2)
    tokens = encoder.tokenize(TEXTS[3:4]).ids[None]
    for step in range(first, last):
        loss = encoder.orthogonal_penalty() - encoder(tokens, torch.ones_like(tokens))[:, 0].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        encoder.allocate_ranks(step / planned)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_only_the_adapter_learns_and_what_is_saved_reads_the_same(
    family: str, kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    before = read(load(models[family]))
    encoder = load(models[family], -1, kind=kind)
    if kind != "prefix":
        torch.testing.assert_close(read(encoder), before, atol=1e-6, rtol=0)  # a new adapter says nothing
    own = {name: value.clone() for name, value in encoder.model.named_parameters() if not value.requires_grad}
    learning = sum(value.numel() for value in encoder.parameters() if value.requires_grad)
    assert 0 < learning < 0.6 * sum(value.numel() for value in own.values())
    teach(encoder)
    assert all(
        torch.equal(value, own[name]) for name, value in encoder.model.named_parameters() if name in own
    )
    tuned = read(encoder)
    assert (tuned - before).abs().max() > 0.01
    encoder.save(tmp_path)
    torch.testing.assert_close(read(encoder), tuned, atol=0, rtol=0)  # saving changes nothing
    saved = load_saved(tmp_path, max_tokens=32, pooling="mean")
    torch.testing.assert_close(read(saved), tuned, atol=1e-5, rtol=0)
    assert saved.has_prefix == (kind == "prefix")
    assert (kind in BESIDE) == (tmp_path / "adapter").is_dir()
    assert {path.suffix for path in tmp_path.rglob("*.*")} <= {".json", ".safetensors"}


@pytest.mark.parametrize("kind", ["lora", "adalora", "ia3", "bottleneck"])
def test_an_adapter_of_the_top_layers_leaves_the_lower_ones_to_be_kept(
    kind: str, models: dict[str, str]
) -> None:
    encoder = load(models["bert"], 1, kind=kind)
    assert not encoder.reads_whole and encoder.num_frozen == 2
    learning = {name for name, value in encoder.named_parameters() if value.requires_grad}
    assert learning and all(".layer.2." in name for name in learning)
    assert sorted(encoder.parameters_by_depth(0.5)) == [1.0]
    teach(encoder)
    torch.testing.assert_close(read(encoder, cached=True), read(encoder), atol=1e-5, rtol=0)


def test_first_weights_come_from_the_seed(models: dict[str, str]) -> None:
    def weights(seed: int) -> Tensor:
        torch.rand(seed)
        encoder = load(models["bert"], -1, kind="lora", seed=seed)
        return torch.cat([value.flatten() for value in encoder.parameters() if value.requires_grad])

    torch.rand(1)
    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize(
    ("kind", "layers", "expected"),
    [("lora", 0, "trainable_layers is 0"), ("prefix", 2, "before all layers"), ("prefix", 0, "is 0")],
)
def test_settings_that_do_not_go_together(
    kind: str, layers: int, expected: str, models: dict[str, str]
) -> None:
    with pytest.raises(SettingError, match=expected):
        load(models["bert"], layers, kind=kind)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder.adapter", "houlsby"),
        ("encoder.pooling", "max"),
        ("encoder.adapter_rank", 0),
        ("finetuning.layerwise_decay", 1.5),
    ],
)
def test_recipes_name_what_there_is(name: str, value: Any, recipe: Recipe) -> None:
    with pytest.raises(SettingError, match=f"{name} is {value!r}; (choose one of|it must)"):
        recipe.updated(**nested({name: value}))


def test_a_family_that_ia3_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'ia3' does not fit ElectraModel"):
        from transformers import AutoTokenizer, ElectraConfig, ElectraModel

        AutoTokenizer.from_pretrained(write_model(tmp_path / "bert", "bert")).save_pretrained(tmp_path)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        ElectraModel(ElectraConfig(vocab_size=76, embedding_size=32, **sizes)).save_pretrained(tmp_path)
        load(tmp_path, -1, kind="ia3")


@pytest.mark.parametrize("kind", BESIDE)
def test_what_lies_beside_a_model_goes_on_learning_or_is_read_under_other_layers(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    encoder = load(models["bert"], -1, kind=kind)
    teach(encoder)
    encoder.save(tmp_path)
    again = load(tmp_path, -1, kind=kind)
    torch.testing.assert_close(read(again), read(encoder), atol=1e-5, rtol=0)
    teach(again)
    assert (read(again) - read(encoder)).abs().max() > 1e-3
    layers = load(tmp_path, 1)
    assert layers.reads_whole and all(
        ".layer.2." in name for name, value in layers.named_parameters() if value.requires_grad
    )
    with pytest.raises(SettingError, match=f"has a {kind}"):
        load(tmp_path, -1, kind="lora")
    next((tmp_path / "adapter").glob("*.safetensors")).write_bytes(b"cut off")
    with pytest.raises(SettingError, match=rf"{kind} in .* cannot be used"):
        load(tmp_path)


def ranks(encoder: TextEncoder) -> tuple[int, int, int]:
    """Ranks in use, adapted layers, and ranks there are."""
    values = [value for name, value in encoder.named_parameters() if "lora_E" in name]
    return sum(int((value != 0).sum()) for value in values), len(values), sum(map(len, values))


def test_adalora_ends_with_the_rank_it_is_given(models: dict[str, str]) -> None:
    encoder = load(models["bert"], -1, kind="adalora")
    _, layers, there = ranks(encoder)
    assert (layers, there) == (18, 18 * 6)
    teach(encoder, last=2)
    assert ranks(encoder)[0] == 18 * 6
    teach(encoder, first=2, last=6)
    assert 18 * 4 < ranks(encoder)[0] < 18 * 6
    teach(encoder, first=6)
    assert ranks(encoder)[0] <= 18 * 4
    per_layer = {int((v != 0).sum()) for n, v in encoder.named_parameters() if "lora_E" in n}
    assert len(per_layer) > 1  # some layers keep more than others


@pytest.mark.parametrize("stop", [5, 16])
def test_adaloras_choice_of_ranks_goes_on_from_a_checkpoint(stop: int, models: dict[str, str]) -> None:
    """The importances begin anew, before and after the last allocation; the number of ranks is the same."""
    begun, other = load(models["bert"], -1, kind="adalora"), load(models["bert"], -1, kind="adalora")
    teach(begun, last=stop)
    restore({"encoder": other}, trainable_state({"encoder": begun}))
    teach(other, first=stop)
    assert 18 * 3 < ranks(other)[0] <= 18 * 4


def test_adalora_allocates_anew_in_a_second_fit(models: dict[str, str]) -> None:
    encoder = load(models["bert"], -1, kind="adalora")
    initial = trainable_state({"encoder": encoder})
    teach(encoder)
    first = trainable_state({"encoder": encoder})
    restore({"encoder": encoder}, initial)
    teach(encoder)
    assert all(
        torch.equal(value, first[name]) for name, value in trainable_state({"encoder": encoder}).items()
    )


def with_adapter(short: Recipe, kind: str) -> Recipe:
    layers = -1 if kind == "prefix" else 1
    return short.updated(
        encoder={"adapter": kind, "adapter_rank": 2, "trainable_layers": layers},
        finetuning={"adapter_learning_rate": 1e-1, "epochs": 3, "patience": 9, "texts_per_step": 2},
        tabular_model={"boosting_models": 0},  # so that there is something left to learn
        early_stopping={"refit": True},
    )


@pytest.fixture(scope="module")
def fits(
    examples: Path, short: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], FitResult]:
    return cache(lambda kind: run(examples, with_adapter(short, kind), tmp_path_factory.mktemp(kind)))


@pytest.mark.parametrize("kind", ["lora", "adalora", pytest.param("ia3", marks=pytest.mark.slow), *BESIDE])
def test_scores_of_the_bundle_are_those_of_the_model_in_training(
    kind: str, examples: Path, fits: Callable[[str], FitResult]
) -> None:
    data = read_examples(examples)
    predictor = Predictor.load(fits(kind).bundle)
    in_training = predictor.score_examples(data)  # vectors kept from training, read with the adapter apart
    before = torch.from_numpy(predictor.texts.get(data.texts, cached=False).numpy().copy())
    predictor.texts.vectors = read(predictor.texts.encoder, data.texts)
    from_saved = predictor.score_examples(data)
    for part in ("text_logit", "tabular_logit", "probability"):
        difference = abs(getattr(in_training, part) - getattr(from_saved, part)).max()
        assert difference < 1e-4, part
    untuned = read(load(predictor.manifest.recipe["encoder"]["name"], max_tokens=24), data.texts)
    assert (untuned - before).abs().max() > 1e-3


@pytest.mark.parametrize(
    "kind",
    ["bottleneck", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lora", "ia3", "prefix"))],
)
def test_a_killed_fit_goes_on_to_the_same_weights(
    kind: str, examples: Path, short: Recipe, fits: Callable[[str], FitResult], tmp_path: Path
) -> None:
    result = goes_on(
        lambda: run(examples, with_adapter(short, kind), tmp_path), killed_after=3
    )  # tabular, finetuning 1, finetuning 2
    assert result.history == fits(kind).history
    assert weights_of(result) == weights_of(fits(kind))
    assert len(weights_of(result)) == (6 if kind in BESIDE else 5)


def test_a_killed_fit_with_adalora_goes_on_to_its_end(
    examples: Path, short: Recipe, fits: Callable[[str], FitResult], tmp_path: Path
) -> None:
    """Its importances are not in the checkpoint, so later weights may differ from those of a fit without a break."""
    result = goes_on(lambda: run(examples, with_adapter(short, "adalora"), tmp_path), killed_after=3)
    through = fits("adalora").history
    assert [entry["phase"] for entry in result.history] == [entry["phase"] for entry in through]
    assert result.history[:3] == through[:3]


def test_rates_by_recipe(examples: Path, recipe: Recipe) -> None:
    data = read_examples(examples)

    def rates(decay: float = 1.0, **settings: Any) -> list[float]:
        context = FitContext(data, recipe.updated(encoder=settings, finetuning={"layerwise_decay": decay}))
        groups = finetuning_phase(context, "finetuning", context.train, epochs=1, validate=False).groups
        return sorted(group["lr"] for group in groups[2:])

    assert rates(trainable_layers=-1) == [3e-5]
    assert rates(decay=0.5, trainable_layers=-1) == pytest.approx([7.5e-6, 1.5e-5, 3e-5])
    assert rates(trainable_layers=0) == []
    assert rates(adapter="lora") == [5e-4]
    assert rates(decay=0.5, adapter="lora", trainable_layers=-1) == [2.5e-4, 5e-4]
