"""Chinese through the whole pipeline: reviews learned, measured and ranked by a language model made from nothing.

No Chinese weights are at hand, so a small model is made of the reviews' own vocabulary, with vectors of the texts in
which its tokens occur and random weights above them, and fitted twice from the same weights: without and with the
phase of language pretraining (masked tokens of the training part's texts). Beside them: TF-IDF of single characters
and pairs with logistic regression.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from expectations.errors import SettingError
from expectations.storage.atomic import read_json, write_json
from tests.benchmarks.chinese.shop import READER, build_shop, review_shop
from tests.benchmarks.harness import Facts, Store, run, shared_data, training_code
from tests.features.built_shop import BuiltShop
from training.config.recipe import Recipe, read_recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.evaluation.metrics import auc
from training.inference.predictor import Predictor
from training.language.new_encoder import write_new_encoder
from training.pipeline.fit import fit
from training.pipeline.phases import FINETUNING, LANGUAGE_PRETRAINING
from training.pipeline.pretraining import known_text_ids

TF_IDF, SCRATCH, PRETRAINED = "TF-IDF", "from nothing", "from nothing, masked tokens first"
SIZES: Facts = {
    "tokenizer": "bpe",
    "vocabulary": 16000,
    "layers": 1,
    "width": 96,
    "max_tokens": 192,
    "seed": 7,
    "semantic_embeddings": True,
}
PENALTIES = (1.0, 4.0, 16.0)
DRAWS = 1000
OWN = ("质量很好，穿着舒服，下次还来👍", "用了两天就坏了，客服不理人😡", "wifi OK，但 APP 太难用", "")


def measure(options: argparse.Namespace) -> Facts:
    """Three scorers of the same test part, and one request."""
    if not options.reviews.exists():
        raise SettingError(f"{options.reviews} does not exist; set SHARED_DATA or --reviews")
    shop = _shop(options)
    data = read_examples(shop.examples)
    encoder: Path = options.work / "encoder"
    if not (encoder / "model.safetensors").exists():
        write_new_encoder(encoder, [data.texts[number] for number in known_text_ids(data)], **SIZES)
    recipe = read_recipe(Path(__file__).with_name("recipe.toml")).updated(encoder={"name": str(encoder)})
    scratch = recipe.updated(pretraining={"language_epochs": 0})
    store, key = Store(options.work), training_code()
    measured = {
        TF_IDF: store.record("tf_idf", key, lambda: tf_idf(data)),
        SCRATCH: store.record("scratch", key, lambda: ours(options.work / f"scratch-{key}", shop, scratch)),
        PRETRAINED: store.record("pretrained", key, lambda: ours(options.work / f"fit-{key}", shop, recipe)),
    }
    found = summary(data, measured, recipe)
    return {**found, "request": request(shop, data, Path(measured[PRETRAINED]["bundle"]))}


def _shop(options: argparse.Namespace) -> BuiltShop:
    home = options.work / "shop"
    if not (home / "examples" / "current.json").exists():
        shutil.rmtree(home, ignore_errors=True)
        build_shop(pd.read_parquet(options.reviews), home)
    return review_shop(home)


def tf_idf(data: Examples) -> Facts:
    """Characters and pairs of them; the penalty is chosen on the validation part, then all before the test part."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    started = time.process_time()
    texts = np.array(data.texts, dtype=object)[data.rows["text_id"].to_numpy()]

    def probability(rows: np.ndarray, wanted: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        known, asked = vectorizer.fit_transform(texts[rows]), vectorizer.transform(texts[wanted])
        models = [LogisticRegression(C=one, solver="liblinear") for one in penalties]
        return [model.fit(known, data.labels[rows]).predict_proba(asked)[:, 1] for model in models]

    train, validation = data.part == TRAIN, data.part == VALIDATION
    tried = probability(train, validation, PENALTIES)
    values = [auc(data.labels[validation], one) or 0.0 for one in tried]
    best = PENALTIES[int(np.argmax(values))]
    return {
        "probability": probability(train | validation, data.part == TEST, [best])[0].tolist(),
        "validation_auc": max(values),
        "cpu_seconds": time.process_time() - started,
    }


def ours(folder: Path, shop: BuiltShop, recipe: Recipe) -> Facts:
    """Fit, load the bundle, score the test part."""
    spent, before = folder / "spent.json", time.process_time()
    earlier = read_json(spent)["cpu_seconds"] if spent.exists() else 0.0
    try:
        result = fit(shop.examples, recipe, out=folder / "out", work=folder / "work", log_dir=folder / "tb")
    finally:  # a fit that was interrupted goes on
        write_json(spent, {"cpu_seconds": earlier + time.process_time() - before})
    predictor = Predictor.load(result.bundle)
    return {
        "probability": predictor.score_examples(read_examples(shop.examples)).probability.tolist(),
        "validation_auc": result.metrics["auc"],
        "cpu_seconds": read_json(spent)["cpu_seconds"],
        "history": result.history,
        "bundle": str(result.bundle),
    }


def summary(data: Examples, measured: dict[str, Facts], recipe: Recipe) -> Facts:
    """Accuracy and AUC of the test part, and how sure the differences are."""
    labels = data.labels[data.part == TEST]
    encoder, history = Path(recipe.encoder.name), measured[PRETRAINED]["history"]
    scored = {name: np.array(one["probability"]) for name, one in measured.items()}
    return {
        "rows": {part: int((data.part == part).sum()) for part in (TRAIN, VALIDATION, TEST)},
        "encoder": {
            **SIZES,
            "vocabulary": read_json(encoder / "config.json")["vocab_size"],
            "parameters": _num_parameters(encoder),
        },
        "recipe": recipe.updated(encoder={"name": encoder.name}).flat(),
        "metrics": {
            name: {
                "accuracy": float(np.mean((scored[name] > 0.5) == (labels > 0))),
                "auc": auc(labels, scored[name]),
                **{key: one[key] for key in ("validation_auc", "cpu_seconds")},
            }
            for name, one in measured.items()
        },
        "difference": {
            "with masked tokens first minus without": _difference(
                labels, scored[PRETRAINED], scored[SCRATCH]
            ),
            "with masked tokens first minus TF-IDF": _difference(labels, scored[PRETRAINED], scored[TF_IDF]),
        },
        "losses": {
            LANGUAGE_PRETRAINING: [
                entry["train_loss"] for entry in history if entry["phase"] == LANGUAGE_PRETRAINING
            ],
            FINETUNING: [
                {key: entry[key] for key in ("train_loss", "log_loss")}
                for entry in history
                if entry["phase"] == FINETUNING
            ],
        },
    }


def _difference(labels: np.ndarray, ours_N: np.ndarray, theirs_N: np.ndarray) -> dict[str, float]:
    """Of two accuracies, with its 95 % interval over drawn test rows."""
    right = [(probability > 0.5) == (labels > 0) for probability in (ours_N, theirs_N)]
    each = right[0].astype(float) - right[1].astype(float)
    rng = np.random.default_rng(0)
    drawn = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"value": float(each.mean()), "low": float(low), "high": float(high)}


def _num_parameters(encoder: Path) -> int:
    from safetensors import safe_open

    with safe_open(encoder / "model.safetensors", framework="pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def request(shop: BuiltShop, data: Examples, bundle: Path) -> Facts:
    """One request, answered by serving's ranker: twenty reviews of the test part; and texts never seen."""
    from features.online.reader import DecisionRequest, OnlineFeatures
    from serving.ranking.ranker import Ranker

    predictor = Predictor.load(bundle)
    ranker = Ranker(
        predictor,
        OnlineFeatures(shop.store, shop.source, shop.horizon),
        source=shop.source,
    )
    tested = data.rows[data.part == TEST]
    asked = tested.iloc[np.linspace(0, len(tested) - 1, 20).astype(int)]
    decision_request = DecisionRequest(
        user_id=READER,
        scenario="content",
        as_of=shop.horizon,
        context={"channel": "web"},
        candidates=asked["item_id"].tolist(),
    )
    started = time.perf_counter()
    ranking = ranker.recommend(decision_request, 20)
    milliseconds = (time.perf_counter() - started) * 1000
    praised = dict(zip(asked["item_id"], asked["label"].astype(bool), strict=True))
    own = predictor.score(asked.head(len(OWN)), texts=OWN)
    return {
        "milliseconds": milliseconds,
        "items": [
            {"item_id": i.item_id, "probability": i.probability, "praise": bool(praised[i.item_id])}
            for i in ranking.items
        ],
        "own_texts": dict(zip(OWN, own.probability.tolist(), strict=True)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    reviews = shared_data("online_shopping_10_cats") / "online_shopping_10_cats.parquet"
    more = {"--reviews": {"type": Path, "default": reviews, "help": "Parquet with review and label"}}
    sys.exit(run("chinese", measure, __doc__, more=more))
