"""Scoring a bundle: one user, many rows, unknown texts, altered files."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from expectations.contracts.examples import ROWS
from expectations.errors import BundleError, RequestError
from tests.training.synthetic import write_examples
from training.data.dataset import Examples, read_examples
from training.data.interaction_history import InteractionHistory
from training.inference.batch_scoring import Scores
from training.inference.predictor import Predictor
from training.language.text_embeddings import TextEmbeddings
from training.pipeline.fit import FitResult


@pytest.fixture(name="predictor", scope="module")
def _scorer(fitted: FitResult) -> Predictor:
    return Predictor.load(fitted.bundle)


@pytest.fixture(name="data", scope="module")
def _data(examples: Path) -> Examples:
    return read_examples(examples)


def ask(predictor: Predictor, data: Examples, chosen: pd.DataFrame) -> Scores:
    """Score the rows of one query group as serving would."""
    place = int(chosen["history_id"].iloc[0])
    text_ids, features = (padded[0] for padded in data.interaction_histories.padded(np.array([place])))
    features = features[text_ids >= 0]
    history = InteractionHistory(
        texts=[data.texts[text] for text in text_ids[text_ids >= 0]],
        events=features[:, 0].tolist(),
        amounts=features[:, 1].tolist(),
        days_ago=features[:, 2].tolist(),
    )
    return predictor.score(
        chosen.drop(columns="label"),
        texts=[data.texts[text] for text in chosen["text_id"]],
        queries=[None if query < 0 else data.texts[query] for query in chosen["query_id"]],
        history=history,
    )


def test_rows_are_scored_in_the_first_position(
    predictor: Predictor, data: Examples, examples: Path, tmp_path: Path
) -> None:
    """Here `item_popularity` is declared to be the position: then what it was of a row plays no part."""
    name = "item_popularity"
    mask = np.arange(len(data.part)) >= len(data.part) - 50
    folders = (tmp_path / "as_shown", tmp_path / "first")
    rows = pd.read_parquet(examples / ROWS)
    write_examples(folders[0], rows=rows, position=name)
    write_examples(folders[1], rows=rows.assign(**{name: np.float32(1)}))
    shown, first = (predictor.score_examples(folder, mask).tabular_logit for folder in folders)
    assert shown.tolist() == first.tolist()
    assert not np.allclose(shown, predictor.score_examples(data, mask).tabular_logit)


def test_served_scores_equal_offline_scores(predictor: Predictor, data: Examples) -> None:
    mask = data.rows["query_group_id"].isin(data.rows["query_group_id"].unique()[-24:]).to_numpy()
    offline = predictor.score_examples(data, mask, with_attention=True)
    chosen = data.rows[mask].reset_index(drop=True)
    for _, rows in chosen.groupby("query_group_id"):
        served = ask(predictor, data, rows)
        at = rows.index.to_numpy()
        for part in ("text_logit", "tabular_logit", "probability"):
            np.testing.assert_allclose(getattr(served, part), getattr(offline, part)[at], atol=1e-5)
        width = served.attention.shape[1]
        np.testing.assert_allclose(served.attention, offline.attention[at, :width], atol=1e-5)
        assert (offline.attention[at, width:] == 0).all()


def test_parts_add_up_to_the_probability(predictor: Predictor, data: Examples) -> None:
    scores = predictor.score_examples(data)
    np.testing.assert_allclose(
        scores.probability, 1 / (1 + np.exp(-(scores.text_logit + scores.tabular_logit))), atol=1e-6
    )
    assert scores.text_logit.std() > 0
    assert len(scores.text_logit) == (data.part == "test").sum()


def test_saved_vectors_are_what_the_encoder_gives(predictor: Predictor, data: Examples) -> None:
    table = TextEmbeddings(predictor.texts.encoder, data.texts, batch=5)
    table.refresh()
    np.testing.assert_allclose(table.vectors.numpy(), predictor.texts.vectors.numpy(), atol=1e-5)


def test_columns_in_another_order_and_extra_ones_change_nothing(predictor: Predictor, data: Examples) -> None:
    rows = data.rows.head(5)
    reversed_columns = rows[rows.columns[::-1]].assign(more=1)
    texts = ["dog food"] * 5
    np.testing.assert_array_equal(
        predictor.score(rows, texts=texts).text_logit,
        predictor.score(reversed_columns, texts=texts).text_logit,
    )


def test_a_missing_column_is_named(predictor: Predictor, data: Examples) -> None:
    with pytest.raises(BundleError, match="context_hour"):
        predictor.score(data.rows.head(1).drop(columns="context_hour"), texts=["dog food"])


def test_cold_start_user_unknown_long_and_empty_texts(predictor: Predictor, data: Examples) -> None:
    rows = data.rows.head(4)
    texts = ["never seen before", "", "coupon " * 1500, "中文"]
    scores = predictor.score(rows, texts=texts, queries=["what", None, "", None], history=None)
    assert np.isfinite(scores.probability).all() and scores.attention.shape == (4, 0)
    again = predictor.score(rows, texts=texts, queries=["what", None, "", None])
    np.testing.assert_array_equal(scores.text_logit, again.text_logit)


def test_no_candidates_give_no_scores(predictor: Predictor, data: Examples) -> None:
    assert predictor.score(data.rows.head(0), texts=[]).probability.shape == (0,)


def test_unequal_lengths_are_refused(predictor: Predictor, data: Examples) -> None:
    with pytest.raises(RequestError, match="2 rows, 1 texts"):
        predictor.score(data.rows.head(2), texts=["a"])
    with pytest.raises(RequestError, match="days_ago"):
        InteractionHistory(texts=["a"], events=[1.0], amounts=[1.0], days_ago=[])


def test_unknown_texts_are_cached_up_to_a_bound(fitted: FitResult) -> None:
    texts = Predictor.load(fitted.bundle).texts
    texts.cache.capacity = 3
    first = texts.get(["a b", "c d"])
    for number in range(5):
        texts.get([f"text {number}"])
    assert len(texts.cache) == 3
    np.testing.assert_allclose(texts.get(["a b", "c d"]).numpy(), first.numpy(), atol=1e-6)


def test_threads_get_the_same_scores(predictor: Predictor, data: Examples) -> None:
    rows = data.rows.head(8)

    def probability(number: int) -> np.ndarray:
        return predictor.score(rows, texts=[f"new text {number % 3}"] * 8).probability

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(probability, range(20))):
            np.testing.assert_allclose(found, probability(number), atol=1e-6)


def test_contributions_to_g_are_the_networks_ablation_and_the_trees_shap_values(
    predictor: Predictor, data: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, transforms, model = data.rows.head(6).drop(columns="label"), predictor.transforms, predictor.model
    monkeypatch.setattr(model, "tabular_scales", torch.tensor([0.7, 0.4]))
    names, contributions = predictor.tabular_contributions(rows)
    assert names == [*data.schema.numeric, *data.schema.categorical] and contributions.shape == (6, 6)
    most_frequent = {
        name: known[0] if known else None for name, known in transforms.category_vocabularies.items()
    }
    typical = dict(zip(transforms.numeric, transforms.typical, strict=True)) | most_frequent

    def inputs_of(rows: pd.DataFrame) -> list[torch.Tensor]:
        features = transforms.numeric_features(rows), transforms.categorical_features(rows)
        return [torch.from_numpy(found) for found in features]

    inputs = inputs_of(rows)
    with torch.inference_mode():
        of_trees = model.trees.contributions(*inputs).numpy()
        for place, name in enumerate(names):
            without = inputs_of(rows.assign(**{name: typical[name]}))
            of_networks = (model.tabular(*inputs) - model.tabular(*without)).mean(1).numpy()
            expected = float(model.slope) * (0.7 * of_networks + 0.4 * of_trees[:, place])
            np.testing.assert_allclose(contributions[:, place], expected, atol=1e-5)
    assert (abs(of_trees) > 1e-3).any() and (abs(contributions) > 1e-3).any()


def test_a_bundle_with_trees_needs_lightgbm(fitted: FitResult, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sorted((fitted.bundle / "boosted_trees").iterdir())
    assert [path.name for path in texts] == ["00.txt", "01.txt", "02.txt", "03.txt"]
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(BundleError, match=r"boosted trees.*pip install lightgbm"):
        Predictor.load(fitted.bundle)


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        "boosted_trees/01.txt",
        "encoder/model.safetensors",
        "transforms.json",
        "embeddings.safetensors",
    ],
)
def test_one_changed_byte_is_found(file: str, fitted: FitResult, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(fitted.bundle, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="altered"):
        Predictor.load(copy)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a model bundle"):
        Predictor.load(tmp_path)
