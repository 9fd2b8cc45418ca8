"""Chinese, emoji, mixed scripts and empty texts from a shop's files to an answered request."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.online.reader import DecisionRequest, OnlineFeatures
from serving.ranking.ranker import Ranker, shortened
from tests.benchmarks.chinese.shop import NUM_DAYS, READER, build_shop, days
from tests.features.built_shop import BuiltShop
from training.config.recipe import read_recipe
from training.data.dataset import read_examples
from training.data.split import TEST
from training.inference.predictor import Predictor
from training.language.new_encoder import write_new_encoder
from training.pipeline.fit import fit
from training.pipeline.pretraining import known_text_ids

pytestmark = pytest.mark.slow

ODD = ("", "👍👍👍", "ＷＩＦＩ 信号 OK 😀", "很好\n很好\t!", "مرحبا 房间 room", "好" * 5000)
THINGS = ("房间", "手机", "苹果", "衣服", "书", "电脑")
PRAISE, COMPLAINT = ("很好", "满意", "喜欢"), ("太差", "失望", "坏了")


def reviews() -> pd.DataFrame:
    rows = [
        {"review": f"{thing}{words}，第{number}次", "label": int(words in PRAISE)}
        for thing in THINGS
        for words in (*PRAISE, *COMPLAINT)
        for number in range(12)
    ]
    rows += [{"review": text, "label": number % 2} for number, text in enumerate(ODD)]
    return pd.DataFrame(rows)


@pytest.fixture(name="shop", scope="module")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> BuiltShop:
    return build_shop(reviews(), tmp_path_factory.mktemp("chinese") / "shop")


@pytest.fixture(name="predictor", scope="module")
def _scorer(shop: BuiltShop) -> Predictor:
    data = read_examples(shop.examples)
    encoder = write_new_encoder(
        shop.home / "encoder",
        [data.texts[number] for number in known_text_ids(data)],
        tokenizer="wordpiece",
        vocabulary=500,
        layers=1,
        width=32,
        max_tokens=32,
        seed=1,
    )
    recipe = read_recipe(Path("tests/benchmarks/chinese/recipe.toml")).updated(
        encoder={"name": str(encoder)},
        pretraining={"language_epochs": 2, "language_learning_rate": 1e-2},
        finetuning={
            "encoder_learning_rate": 1e-2,
            "text_model_learning_rate": 1e-2,
            "epochs": 6,
            "texts_per_step": 32,
        },
    )
    places = {"out": shop.home / "out", "work": shop.home / "work", "log_dir": shop.home / "tb"}
    return Predictor.load(fit(shop.examples, recipe, progress=False, **places).bundle)


def test_a_text_that_occurs_twice_is_never_tested() -> None:
    texts = pd.Series([f"text {number}" for number in range(500)] + ["twice"] * 2)
    found = days(texts)
    assert (found[-2:] < NUM_DAYS).all()
    assert (found == NUM_DAYS).sum() == 100
    per_day = np.bincount(found[found < NUM_DAYS])
    assert per_day.max() - per_day.min() <= 1


def test_every_text_comes_through_unchanged(shop: BuiltShop) -> None:
    data = read_examples(shop.examples)
    assert len(data.rows) == len(reviews())
    assert set(reviews()["review"]) <= set(data.texts)


def test_the_words_are_understood(shop: BuiltShop, predictor: Predictor) -> None:
    data = read_examples(shop.examples)
    labels = data.labels[data.part == TEST] > 0
    probability = predictor.score_examples(data).probability
    ordinary = ~pd.Series(data.texts)[data.rows["text_id"][data.part == TEST]].isin(ODD).to_numpy()
    assert np.mean((probability > 0.5)[ordinary] == labels[ordinary]) > 0.9


def test_a_request_is_answered_as_measured(shop: BuiltShop, predictor: Predictor) -> None:
    features = OnlineFeatures(shop.store, shop.source, shop.horizon)
    ranker = Ranker(predictor, features, source=shop.source)
    odd = [f"r{number:05d}" for number in range(len(reviews()) - len(ODD), len(reviews()))]
    data = read_examples(shop.examples)
    tested = data.rows[data.part == TEST]
    offline = dict(zip(tested["item_id"], predictor.score_examples(data).text_logit, strict=True))
    asked = list(dict.fromkeys([*odd, *tested["item_id"]]))
    decision_request = DecisionRequest(
        user_id=READER,
        scenario="content",
        as_of=tested["event_timestamp"].iloc[0].to_pydatetime(),
        context={"channel": "web"},
        candidates=asked,
    )
    reply = {item.item_id: item for item in ranker.recommend(decision_request, len(asked)).items}
    assert set(reply) == set(asked)
    assert [reply[name].text for name in odd] == [shortened(text) for text in ODD]
    assert all(np.isfinite(item.probability) for item in reply.values())
    for name, f in offline.items():
        assert reply[name].text_logit == pytest.approx(f, abs=1e-4)
