"""Scoring a bundle: one shopper, many rows, unknown texts, altered files."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expectations.errors import BundleError, RequestError
from training.data.dataset import Examples, read_examples
from training.data.interaction_history import History
from training.inference.batch_scoring import Scores
from training.inference.predictor import Scorer
from training.language.text_embeddings import TextTable
from training.pipeline.fit import FitResult


@pytest.fixture(name="scorer", scope="module")
def _scorer(fitted: FitResult) -> Scorer:
    return Scorer.load(fitted.bundle)


@pytest.fixture(name="data", scope="module")
def _data(examples: Path) -> Examples:
    return read_examples(examples)


def ask(scorer: Scorer, data: Examples, chosen: pd.DataFrame) -> Scores:
    """Score the rows of one list as serving would."""
    place = int(chosen["history_id"].iloc[0])
    text_ids, features = (padded[0] for padded in data.histories.padded(np.array([place])))
    features = features[text_ids >= 0]
    history = History(
        texts=[data.texts[text] for text in text_ids[text_ids >= 0]],
        events=features[:, 0].tolist(),
        amounts=features[:, 1].tolist(),
        days_ago=features[:, 2].tolist(),
    )
    return scorer.score(
        chosen.drop(columns="label"),
        texts=[data.texts[text] for text in chosen["text_id"]],
        queries=[None if query < 0 else data.texts[query] for query in chosen["query_id"]],
        history=history,
    )


def test_served_scores_equal_offline_scores(scorer: Scorer, data: Examples) -> None:
    mask = data.rows["list_id"].isin(data.rows["list_id"].unique()[-24:]).to_numpy()
    offline = scorer.score_examples(data, mask, with_attention=True)
    chosen = data.rows[mask].reset_index(drop=True)
    for _, rows in chosen.groupby("list_id"):
        served = ask(scorer, data, rows)
        at = rows.index.to_numpy()
        for part in ("f", "g", "probability"):
            np.testing.assert_allclose(getattr(served, part), getattr(offline, part)[at], atol=1e-5)
        width = served.attention.shape[1]
        np.testing.assert_allclose(served.attention, offline.attention[at, :width], atol=1e-5)
        assert (offline.attention[at, width:] == 0).all()


def test_parts_add_up_to_the_probability(scorer: Scorer, data: Examples) -> None:
    scores = scorer.score_examples(data)
    np.testing.assert_allclose(scores.probability, 1 / (1 + np.exp(-(scores.f + scores.g))), atol=1e-6)
    assert scores.f.std() > 0
    assert len(scores.f) == (data.part == "test").sum()


def test_kept_vectors_are_what_the_encoder_gives(scorer: Scorer, data: Examples) -> None:
    table = TextTable(scorer.texts.encoder, data.texts, batch=5)
    table.refresh()
    np.testing.assert_allclose(table.vectors.numpy(), scorer.texts.vectors.numpy(), atol=1e-5)


def test_columns_in_another_order_and_extra_ones_change_nothing(scorer: Scorer, data: Examples) -> None:
    rows = data.rows.head(5)
    turned = rows[rows.columns[::-1]].assign(more=1)
    texts = ["dog food"] * 5
    np.testing.assert_array_equal(scorer.score(rows, texts=texts).f, scorer.score(turned, texts=texts).f)


def test_a_missing_column_is_named(scorer: Scorer, data: Examples) -> None:
    with pytest.raises(BundleError, match="context_hour"):
        scorer.score(data.rows.head(1).drop(columns="context_hour"), texts=["dog food"])


def test_new_shopper_unknown_long_and_empty_texts(scorer: Scorer, data: Examples) -> None:
    rows = data.rows.head(4)
    texts = ["never seen before", "", "coupon " * 1500, "中文"]
    scores = scorer.score(rows, texts=texts, queries=["what", None, "", None], history=None)
    assert np.isfinite(scores.probability).all() and scores.attention.shape == (4, 0)
    again = scorer.score(rows, texts=texts, queries=["what", None, "", None])
    np.testing.assert_array_equal(scores.f, again.f)


def test_no_candidates_give_no_scores(scorer: Scorer, data: Examples) -> None:
    assert scorer.score(data.rows.head(0), texts=[]).probability.shape == (0,)


def test_unequal_lengths_are_refused(scorer: Scorer, data: Examples) -> None:
    with pytest.raises(RequestError, match="2 rows, 1 texts"):
        scorer.score(data.rows.head(2), texts=["a"])
    with pytest.raises(RequestError, match="days_ago"):
        History(texts=["a"], events=[1.0], amounts=[1.0], days_ago=[])


def test_unknown_texts_are_kept_up_to_a_bound(fitted: FitResult) -> None:
    texts = Scorer.load(fitted.bundle).texts
    texts.recent.most = 3
    first = texts.of(["a b", "c d"])
    for number in range(5):
        texts.of([f"text {number}"])
    assert len(texts.recent) == 3
    np.testing.assert_allclose(texts.of(["a b", "c d"]).numpy(), first.numpy(), atol=1e-6)


def test_threads_get_the_same_scores(scorer: Scorer, data: Examples) -> None:
    rows, found = data.rows.head(8), []

    def work(number: int) -> None:
        for step in range(5):
            texts = [f"new text {(number + step) % 3}"] * 8
            found.append((texts[0], scorer.score(rows, texts=texts).probability))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    for text, probability in found:
        np.testing.assert_allclose(probability, scorer.score(rows, texts=[text] * 8).probability, atol=1e-6)


def test_explaining_g_is_occlusion_one_feature_at_a_time(scorer: Scorer, data: Examples) -> None:
    rows, transforms = data.rows.head(6).drop(columns="label"), scorer.transforms
    names, contributions = scorer.explain_g(rows)
    assert names == [*data.schema.numeric, *data.schema.categorical] and contributions.shape == (6, 6)
    usual = {name: words[0] if words else None for name, words in transforms.vocabularies.items()}
    typical = dict(zip(transforms.numeric, transforms.typical, strict=True)) | usual
    texts = ["dog food"] * 6
    for place, name in enumerate(names):
        occluded = rows.assign(**{name: typical[name]})
        expected = scorer.score(rows, texts=texts).g - scorer.score(occluded, texts=texts).g
        np.testing.assert_allclose(contributions[:, place], expected, atol=1e-5)
    assert (abs(contributions) > 1e-3).any()


@pytest.mark.parametrize(
    "file", ["model.safetensors", "encoder/model.safetensors", "transforms.json", "embeddings.safetensors"]
)
def test_one_changed_byte_is_found(file: str, fitted: FitResult, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(fitted.bundle, copy)
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="altered"):
        Scorer.load(copy)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a model bundle"):
        Scorer.load(tmp_path)
