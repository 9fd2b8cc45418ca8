"""What the model is measured against: what anybody would try first, from a constant to boosted trees.

Each learns from all rows before the test part, or where they are more than it can take, from a sample: rows that were
drawn at a rate count by its inverse (Horvitz & Thompson 1952), so that probabilities are those of all rows.

Shapes: N rows, U histories, P pairs, H length of a history, E width of a text's vector, D features.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy import sparse
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.dataset import Examples
from training.data.sampling import sampled, tabular_batches
from training.data.split import TEST, TRAIN, VALIDATION
from training.evaluation.metrics import log_loss
from training.inference.bundle import PRETRAINED_EMBEDDINGS, known_texts
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings
from training.models.boosted_trees import import_lightgbm, train_boosting
from training.models.calibration import fit_calibration
from training.models.text_match import entry_features, weighted_sums
from training.runtime.device import first_device, num_threads

CALIBRATION_ROWS = 1 << 17  # that the two numbers are fitted on which make a score a probability
TREES, RATE, LEAVES = 150, 0.06, 15
MIN_HESSIAN = 1.0  # Σ p(1 - p) of a leaf's rows: LightGBM's 1e-3 lets leaves of a few rare positives diverge
TREE_CELLS = 1 << 27  # rows · features that LightGBM learns from, at most: 512 MiB
REGRESSION_ROWS = 1 << 16  # that the logistic regression learns from, at most
PENALTIES = (1.0, 0.1, 0.01)  # its C, the validation part chooses
PRIOR_WEIGHT = 10.0  # exposures with the mean outcome, beside those of an item


def pretrained_vectors(recipe: Recipe, texts: list[str], bundle: Path) -> Tensor:
    """Vectors of texts, (T, E), by the recipe's language model as it was before fine-tuning.

    Args:
        recipe: names the language model.
        texts: the texts.
        bundle: holds the vectors of most of them.
    """
    saved = load_file(bundle / PRETRAINED_EMBEDDINGS)["vectors"]
    known = known_texts(bundle)
    places = np.array([known.get(text, -1) for text in texts])
    vectors = saved[torch.from_numpy(places).clamp_min(0)]
    unknown = np.flatnonzero(places < 0)
    if len(unknown):
        settings, device = recipe.encoder, first_device()
        encoder = TextEncoder.load(
            settings.name, max_tokens=settings.max_tokens, trainable_layers=0, pooling=settings.pooling
        )
        others = [texts[place] for place in unknown]
        table = TextEmbeddings(encoder.to(device), others, batch=settings.batch_size, device=device)
        table.refresh()
        vectors[torch.from_numpy(unknown)] = table.vectors.cpu()
    return vectors


def zero_shot(
    examples: Examples, collator: Collator, vectors_TE: Tensor, rows: np.ndarray, seed: int
) -> np.ndarray:
    """Probabilities by `zero_shot_score`, (N,)."""
    fit_on, weights = drawn_rows(examples, before_test(examples), CALIBRATION_ROWS, seed)
    score = zero_shot_score(collator, vectors_TE, np.concatenate([rows, fit_on]))
    labels = examples.columns.at("label", fit_on)
    return probabilities(score[: len(rows)], score[len(rows) :], labels, weights)


@torch.inference_mode()
def zero_shot_score(collator: Collator, vectors_TE: Tensor, rows: np.ndarray) -> np.ndarray:
    """Cosine of each candidate's text with the user's interaction history, without any learning, (N,) float64.

    Mean over the history weighted by log(1 + events) · exp(-days ago / 90); where there is a query, the mean
    of that and the cosine of candidate and query. A user without history and query scores 0.
    """
    score = np.zeros(len(rows))
    for chunk in collator.chunks(rows):
        batch, text_ids = collator.batch(rows[chunk])
        vectors = vectors_TE[torch.from_numpy(text_ids)]
        candidates = vectors[batch.candidate_text]
        entries = entry_features(batch.history_features)
        weight_UH = entries[:, :, 0] * entries[:, :, 3] * (batch.history >= 0)
        weight_UH = weight_UH / weight_UH.sum(1, keepdim=True).clamp_min(1e-9)
        mean_UP = weighted_sums(batch.history.clamp_min(0), vectors @ candidates.T, weight_UH)
        mean = mean_UP[batch.user, batch.candidate_query]
        has_query = batch.query_text >= 0
        query_similarity = (candidates * vectors[batch.query_text.clamp_min(0)]).sum(1)[batch.candidate_query]
        score[chunk] = (
            torch.where(has_query[batch.candidate_query], (mean + query_similarity) / 2, mean)
            .double()
            .numpy()
        )
    return score


def popularity(examples: Examples, rows: np.ndarray, seed: int) -> np.ndarray | None:
    """Probabilities by the schema's popularity column, or by each item's past outcomes where it tells no rows apart.

    Returns:
        (N,), or None where neither tells the rows apart: a constant is no ranking.
    """
    score = popularity_score(examples, rows)
    if np.ptp(score):
        fit_on, weights = drawn_rows(examples, before_test(examples), CALIBRATION_ROWS, seed)
        labels = examples.columns.at("label", fit_on)
        return probabilities(score, popularity_score(examples, fit_on), labels, weights)
    rate = past_outcomes(examples, rows)
    return rate if np.ptp(rate) else None


def popularity_score(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """The schema's popularity column, (N,), its signed logarithm; unknown counts as least popular."""
    columns, name = examples.columns, examples.schema.popularity
    known = columns.series(name, slice(None)).dropna()
    least = float(known.min()) if len(known) else 0.0
    values = columns.series(name, rows).fillna(least).to_numpy(np.float64)
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def past_outcomes(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Rate of positives of each row's item before the test part, shrunken to that of all, (N,)."""
    columns, before = examples.columns, before_test(examples)
    item, weight = columns.at("item_id", before), columns.at("weight", before).astype(np.float64)
    num_items = len(columns.categories("item_id"))
    shown = np.bincount(item, weights=weight, minlength=num_items)
    positive = np.bincount(item, weights=weight * columns.at("label", before), minlength=num_items)
    rate = positive.sum() / shown.sum()
    return ((positive + PRIOR_WEIGHT * rate) / (shown + PRIOR_WEIGHT))[columns.at("item_id", rows)]


def base_rate(examples: Examples) -> float:
    """Fraction of positives before the test part."""
    before = before_test(examples)
    return float(
        np.average(examples.columns.at("label", before), weights=examples.columns.at("weight", before))
    )


def before_test(examples: Examples) -> np.ndarray:
    """Numbers of the rows of the training and validation parts, ascending."""
    return np.flatnonzero(examples.part != TEST)


def drawn_rows(examples: Examples, rows: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many of some rows, ascending, positives and others half each where it can be; and their weights.

    A weight is the row's own, divided by the rate at which its kind was drawn.
    """
    weights = examples.columns.at("weight", rows).astype(np.float64)
    if len(rows) <= most:
        return rows, weights
    positive = examples.columns.at("label", rows) > 0
    num_positive = min(positive.sum(), max(most // 2, most - (~positive).sum()))
    drawn = []
    for kind, count in ((positive, num_positive), (~positive, most - num_positive)):
        places = np.flatnonzero(kind)
        chosen = sampled(places, int(count), seed)
        weights[chosen] *= len(places) / max(len(chosen), 1)
        drawn.append(chosen)
    places = np.sort(np.concatenate(drawn))
    return rows[places], weights[places]


def probabilities(
    score: np.ndarray, fit_score: np.ndarray, fit_label: np.ndarray, fit_weight: np.ndarray
) -> np.ndarray:
    """Scores as probabilities, by a logistic fit on other rows' scores, labels and weights."""
    mean, deviation = float(fit_score.mean()), float(max(fit_score.std(), 1e-9))
    slope, shift = fit_calibration((fit_score - mean) / deviation, fit_label, fit_weight)
    return np.asarray(expit(slope * (score - mean) / deviation + shift))


def boosted_trees(
    examples: Examples, collator: Collator, rows: np.ndarray, *, seed: int
) -> np.ndarray | None:
    """Probabilities by LightGBM on the same features, categories as such, (N,).

    Returns:
        None where LightGBM is not installed.
    """
    if import_lightgbm() is None:
        return None
    num_numeric, num_categorical = len(collator.transforms.numeric), len(collator.transforms.categorical)
    most = TREE_CELLS // (num_numeric + num_categorical)
    fit_on, weights = drawn_rows(examples, before_test(examples), most, seed)
    trees = train_boosting(
        collator.feature_matrix(fit_on),
        examples.columns.at("label", fit_on),
        {"learning_rate": RATE, "num_leaves": LEAVES, "min_sum_hessian_in_leaf": MIN_HESSIAN},
        num_trees=TREES,
        seed=seed,
        weights_N=weights,
        categorical=range(num_numeric, num_numeric + num_categorical),
    )
    blocks = tabular_batches(rows, max(1, most // 8))
    threads = num_threads()
    return np.concatenate(
        [trees.predict(collator.feature_matrix(block), num_threads=threads) for block in blocks]
    )


def logistic_regression(examples: Examples, collator: Collator, rows: np.ndarray, *, seed: int) -> np.ndarray:
    """Probabilities by a logistic regression on the same features, each bin and category an input of its own, (N,).

    scikit-learn's; its penalty is the one that is best on the validation part after learning from the training part.
    """

    def fitted(of: np.ndarray, penalty: float) -> LogisticRegression:
        fit_on, weights = drawn_rows(examples, of, REGRESSION_ROWS, seed)
        labels = examples.columns.at("label", fit_on).astype(np.float64)
        soft = np.flatnonzero((labels > 0) & (labels < 1))  # as a positive and a negative row
        inputs = one_hot(collator, np.concatenate([fit_on, fit_on[soft]]))
        outcomes = np.concatenate([labels > 0, np.zeros(len(soft), dtype=bool)])
        fractions = np.concatenate([np.where(labels > 0, labels, 1.0), 1 - labels[soft]])
        model = LogisticRegression(C=penalty, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough after 200 iterations
            return model.fit(inputs, outcomes, np.concatenate([weights, weights[soft]]) * fractions)

    train, validation = (np.flatnonzero(examples.part == name) for name in (TRAIN, VALIDATION))
    validation, weights = drawn_rows(examples, validation, REGRESSION_ROWS, seed)
    inputs, labels = one_hot(collator, validation), examples.columns.at("label", validation)
    losses = [
        log_loss(labels, fitted(train, penalty).predict_proba(inputs)[:, 1], weights) for penalty in PENALTIES
    ]
    best = fitted(before_test(examples), PENALTIES[int(np.argmin(np.array(losses, dtype=float)))])
    blocks = tabular_batches(rows, REGRESSION_ROWS)
    return np.concatenate([best.predict_proba(one_hot(collator, block))[:, 1] for block in blocks])


def one_hot(collator: Collator, rows: np.ndarray) -> sparse.csr_array:
    """Quantile bin of each number, unknown its own, and each category, as a sparse matrix of ones, (N, inputs)."""
    transforms = collator.transforms
    numeric, categorical = (features.numpy() for features in collator.features(rows))
    places, first = [], 0
    for values, edges in zip(numeric.T, transforms.bin_edges, strict=True):
        inner = np.unique(edges)[1:-1]
        unknown = np.isnan(values)
        places.append(first + np.where(unknown, len(inner) + 1, np.searchsorted(inner, values, side="right")))
        first += len(inner) + 2
    for codes, name in zip(categorical.T, transforms.categorical, strict=True):
        places.append(first + codes)
        first += len(transforms.category_vocabularies[name]) + 1
    indices = np.stack(places, axis=1).astype(np.int32)
    starts = np.arange(len(rows) + 1, dtype=np.int32) * indices.shape[1]
    ones = np.ones(indices.size, dtype=np.float32)
    return sparse.csr_array((ones, indices.ravel(), starts), shape=(len(rows), first))
