"""What the model is measured against: the language model before fine-tuning, boosted trees, popularity.

Each gives a score and, through two numbers fitted before the test part, a probability.

Shapes: N rows, U histories, P pairs, H length of a history, E width of a text's vector.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.dataset import Examples
from training.data.split import TEST
from training.data.transforms import Transforms
from training.inference.bundle import PRETRAINED_EMBEDDINGS
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings
from training.models.boosted_trees import train_boosting
from training.models.calibration import fit_calibration
from training.models.text_match import entry_features, weighted_sums
from training.runtime.device import first_device

NEGATIVE_SAMPLING_RATE = 0.1  # of the negatives that the two numbers are fitted on
TREES, RATE, LEAVES = 300, 0.03, 15


def pretrained_vectors(recipe: Recipe, texts: list[str], bundle: Path, known: Mapping[str, int]) -> Tensor:
    """Vectors of texts, (T, E), by the recipe's language model as it was before fine-tuning.

    Args:
        recipe: names the language model.
        texts: the texts.
        bundle: holds the vectors of known texts.
        known: place of each known text.
    """
    saved = load_file(bundle / PRETRAINED_EMBEDDINGS)["vectors"]
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


def popularity_score(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """The schema's popularity column, (N,), its signed logarithm; unknown counts as least popular."""
    columns, name = examples.columns, examples.schema.popularity
    known = columns.series(name, slice(None)).dropna()
    least = float(known.min()) if len(known) else 0.0
    values = columns.series(name, rows).fillna(least).to_numpy(np.float64)
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def fitting_rows(examples: Examples, seed: int) -> tuple[np.ndarray, float]:
    """Rows before the test part to fit two numbers on: all positives and a sample of the negatives; and its rate."""
    before = np.flatnonzero(examples.part != TEST)
    labels = examples.labels[before]
    rng = np.random.default_rng(seed)
    drawn = (labels > 0) | (rng.random(len(before)) < NEGATIVE_SAMPLING_RATE)
    return before[drawn], float((drawn & (labels == 0)).sum() / max((labels == 0).sum(), 1))


def probabilities(
    score: np.ndarray, fit_score: np.ndarray, fit_label: np.ndarray, negative_sampling_rate: float
) -> np.ndarray:
    """Scores as probabilities, by a logistic fit on rows whose negatives were drawn at that rate."""
    mean, deviation = float(fit_score.mean()), float(max(fit_score.std(), 1e-9))
    slope, shift = fit_calibration((fit_score - mean) / deviation, fit_label)
    logit = slope * (score - mean) / deviation + shift + np.log(negative_sampling_rate)
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -50, 50))))


def boosted_trees(
    examples: Examples, transforms: Transforms, rows: np.ndarray, *, seed: int
) -> np.ndarray | None:
    """Probabilities by LightGBM on the same features, fitted on all rows before the test part, (N,).

    Returns:
        None where LightGBM is not installed.
    """
    numbers = examples.rows[list(transforms.numeric)].to_numpy(np.float32)
    features = np.hstack([numbers, transforms.categorical_features(examples.rows).astype(np.float32)])
    before = examples.part != TEST
    settings = {"learning_rate": RATE, "num_leaves": LEAVES}
    # Codes are in order of frequency: as numbers they overfit less than LightGBM's categorical splits.
    trees = train_boosting(features[before], examples.labels[before], settings, num_trees=TREES, seed=seed)
    return None if trees is None else np.asarray(trees.predict(features[rows]))
