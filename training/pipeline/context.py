"""The data, texts and modules of one fit."""

import copy
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.dataset import Examples
from training.data.sampling import (
    blocks,
    distinct_values,
    downsample_negatives,
    negative_sampling_rate,
    positions,
    rows_of,
    sampled,
)
from training.data.split import TRAIN, VALIDATION
from training.data.text_pairs import ObservedPairs, distinct_pairs, observed_pairs
from training.data.transforms import Transforms, fit_transforms
from training.evaluation.baselines import pretrained_vectors
from training.evaluation.validation import ValidationMetrics
from training.inference.batch_scoring import Scores, logit_parts, score_rows
from training.language.adapters import NONE, Adapter
from training.language.encoder import TextEncoder
from training.language.text_embeddings import TextEmbeddings
from training.models.additive import PARTS, AdditiveModel, build_model
from training.models.boosted_trees import TreeRows
from training.models.lexical_response import lexical_regressions
from training.models.stacking import fit_stacking
from training.models.text_match import TEXT_PARTS
from training.models.text_response import response_regressions
from training.pipeline.warm_start import Champion
from training.runtime.checkpoint import restore, trainable_state, trainable_tensors, with_prefix
from training.runtime.device import first_device

# Of more rows than these, transforms are fitted on a sample, and trees learn from fewer of the negatives.
FITTED_ROWS, TREE_ROWS = 1 << 20, 1 << 19
RESPONSE_PAIRS = 1 << 16  # of text and query, that f's direct paths start from, at most
LEARNED_BY_LABELS = ("scales", "response.", "lexical.")  # of f's weights, before fine-tuning
REFERENCES, REFERENCE_LENGTH = 32, 256  # reference users, entries of their histories


class EncodedCorpus:
    """A language model, and its vectors of every text as it begins; that beginning can be restored.

    Args:
        texts: distinct texts, by `text_id`.
        recipe: names the language model and says how it reads.
        champion: the bundle whose language model it is; None: the pretrained one.
        parent: a bundle that holds the pretrained one's vectors of these texts; None: all are read.
        device: where it runs.

    Attributes:
        encoder: the language model.
        embeddings: the texts with their vectors as they are now.
        pretrained_vectors: (T, E) the texts' vectors before any fine-tuning.
    """

    def __init__(
        self,
        texts: list[str],
        recipe: Recipe,
        champion: Champion | None,
        device: str,
        parent: Path | None = None,
    ) -> None:
        settings = recipe.encoder
        adapted = settings.adapter != NONE
        self.encoder = TextEncoder.load(
            champion.encoder if champion else settings.name,
            max_tokens=settings.max_tokens,
            trainable_layers=settings.trainable_layers,
            pooling=settings.pooling,
            adapter=Adapter(kind=settings.adapter, rank=settings.adapter_rank, seed=recipe.seed)
            if adapted
            else None,
        ).to(device)
        self.embeddings = TextEmbeddings(
            self.encoder,
            texts,
            batch=settings.batch_size,
            device=device,
            token_dropout=settings.token_dropout,
        )
        if champion:
            champion.fill(self.embeddings, texts)
        elif parent:
            self.embeddings.vectors.copy_(pretrained_vectors(recipe, texts, parent))
        else:
            self.embeddings.cache_frozen_layers()
            self.embeddings.refresh()
        self._initial_weights = trainable_state({"encoder": self.encoder})
        self._vectors = self.embeddings.vectors.clone()
        self.pretrained_vectors = (
            champion.texts_before(texts, recipe).to(device) if champion else self._vectors
        )

    def starting_from(self, weights: dict[str, Tensor]) -> "EncodedCorpus":
        """The same language model and texts, but these weights are the beginning."""
        restore({"encoder": self.encoder}, weights)
        self.embeddings.refresh()
        other = copy.copy(self)
        other._initial_weights, other._vectors = weights, self.embeddings.vectors.clone()
        return other

    def refresh(self) -> None:
        """Vectors of all texts anew; those of the beginning are known."""
        now = with_prefix("encoder", dict(trainable_tensors(self.encoder)))
        if all(torch.equal(now[name], weight) for name, weight in self._initial_weights.items()):
            self.embeddings.vectors.copy_(self._vectors)
        else:
            self.embeddings.refresh()

    def reset(self) -> None:
        """Put weights and vectors back to the initial ones."""
        restore({"encoder": self.encoder}, self._initial_weights)
        self.encoder.eval()
        self.embeddings.vectors.copy_(self._vectors)


class FitContext:
    """The data, texts and modules of one fit.

    Args:
        data: the examples.
        recipe: the settings.
        champion: the bundle whose weights and transforms it starts with; None: from scratch.
        parent: the evaluated bundle that this is the refit of, if it is one: the same texts were read for it.
        corpus: the texts, where another fit of the same recipe has encoded them.
    """

    def __init__(
        self,
        data: Examples,
        recipe: Recipe,
        champion: Champion | None = None,
        parent: Path | None = None,
        *,
        corpus: EncodedCorpus | None = None,
    ) -> None:
        self.data, self.recipe, self.champion = data, recipe, champion
        self.device = first_device()
        self.labels = data.columns["label"]
        self.train, self.validation = rows_of(data.part, TRAIN), rows_of(data.part, VALIDATION)
        self._mean_weight = float(
            np.mean([data.columns.at("weight", rows).mean() for rows in blocks(self.train)])
        )
        self.validation_metrics = ValidationMetrics(data, self.validation, recipe.early_stopping.metric)
        self.transforms = champion.predictor.transforms if champion else self._fitted_transforms()
        self.collator = Collator(data, self.transforms, pin_memory=self.device == "cuda")
        self.corpus = corpus or EncodedCorpus(data.texts, recipe, champion, self.device, parent)
        self.encoder, self.table = self.corpus.encoder, self.corpus.embeddings
        self.pretrained_vectors = self.corpus.pretrained_vectors
        self.candidate_ids = distinct_values(data.columns, "text_id", self.train)
        known = distinct_values(data.columns, "history_id", self.train)
        self.topic_ids = self._topics(known)
        self.reference_places, self.reference_features = self._references(known)
        self.model = self.fresh_model()
        self._validation_trees: np.ndarray | None = (
            None  # their logits there, which fine-tuning does not change
        )
        data.columns.release()

    def _fitted_transforms(self) -> Transforms:
        schema = self.data.schema
        return fit_transforms(
            self.data.columns.of(sampled(self.train, FITTED_ROWS, self.recipe.seed)),
            numeric=schema.numeric,
            categorical=schema.categorical,
            bins=self.recipe.tabular_model.quantile_bins,
        )

    def _topics(self, known: np.ndarray) -> np.ndarray:
        """Topics of interactions before the validation part, ascending; `known` are the training part's histories."""
        histories, next_interactions = self.data.interaction_histories, self.data.next_interactions
        found = [histories.interaction_texts(known)]
        if next_interactions is not None:
            chosen = self.known_next_interactions()
            found.append(histories.interaction_texts(np.unique(next_interactions.history_id[chosen])))
            found.append(next_interactions.texts_of(chosen)[0])
        return np.unique(np.concatenate(found))

    def _references(self, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some of the known histories: places among the topics, (R, H), and features."""
        rng = np.random.default_rng(self.recipe.seed)
        drawn = np.sort(rng.choice(known, min(REFERENCES, len(known)), replace=False))
        _, features = self.data.interaction_histories.padded(drawn)
        text_ids = self.data.interaction_histories.interactions(drawn)[:, :REFERENCE_LENGTH]
        return positions(self.topic_ids, text_ids), features[:, :REFERENCE_LENGTH]

    def known_next_interactions(self) -> np.ndarray:
        """Numbers of the next-interaction windows that were over when the validation part began."""
        if self.data.next_interactions is None:
            return np.zeros(0, dtype=np.int64)
        return self.data.next_interactions.ended_by(
            self.data.columns.at("event_timestamp", self.validation).min()
        )

    def fresh_model(self) -> AdditiveModel:
        """New f and g and the pretrained language model, or all three as the champion's are."""
        torch.manual_seed(self.recipe.seed)
        self.corpus.reset()
        model = self.champion.model().to(self.device) if self.champion else self._new_model()
        self.collator.lexical = model.text_model.lexical.logits
        return model.eval()

    def _new_model(self) -> AdditiveModel:
        weights = self.weights_of(self.train)
        rate = float(np.float32(weights @ self.labels[self.train] / weights.sum()))
        model = build_model(
            self.recipe,
            self.transforms,
            text_width=self.encoder.width,
            base_rate=rate,
            num_topics=len(self.topic_ids),
            reference_shape=self.reference_places.shape,
        ).to(self.device)
        self._set_topics(model)
        model.text_model.reference_history.copy_(torch.from_numpy(self.reference_places))
        model.text_model.reference_features.copy_(torch.from_numpy(self.reference_features))
        return model

    def _set_topics(self, model: AdditiveModel) -> None:
        candidates, topics = (
            self.table.vectors[torch.from_numpy(ids)] for ids in (self.candidate_ids, self.topic_ids)
        )
        model.text_model.set_topics(candidates, topics)

    def weights_of(self, rows: np.ndarray) -> np.ndarray:
        """How much some rows count, (k,) float32, 1 on average in the training part."""
        return self.data.columns.at("weight", rows) / np.float32(self._mean_weight)

    def sampling_rate(self, rows: np.ndarray, negatives_per_positive: float) -> float:
        """Fraction of the negatives among some rows to draw."""
        return negative_sampling_rate(self.labels, rows, negatives_per_positive)

    def refresh_vectors(self) -> None:
        """After the language model has learned: vectors of all texts anew, those of the known topics too."""
        if self.encoder.is_trainable:
            self.corpus.refresh()
            if not self.champion:
                self._set_topics(self.model)

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Every later phase, the refit's too, begins with these weights of the language model."""
        self.corpus = self.corpus.starting_from(weights)
        self.model = self.fresh_model()

    def centre_text_model(self) -> None:
        """After pretraining: f is centred by reference users, and silent until its scales are chosen."""
        self.model.text_model.centred.fill_(1)
        self.model.set_scales([*[0.0] * len(TEXT_PARTS), 1.0, 0.0], 0.0)

    def take_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Take f as it was after pretraining, from all of a model's weights; a champion's is further already."""
        if not self.champion:
            own = tuple(f"text_model.{name}" for name in LEARNED_BY_LABELS)
            pretrained = {name: value for name, value in weights.items() if not name.startswith(own)}
            restore({"text_model": self.model.text_model}, pretrained)

    def fit_response(self, observed: ObservedPairs, penalty: int | None) -> int:
        """Start f's direct path by a logistic regression on the vectors of texts and queries.

        Args:
            observed: what came of them.
            penalty: place among the penalties; None: the one that the validation part finds best.

        Returns:
            Its place.
        """
        response = self.model.text_model.response
        pairs, *weights = observed
        counts = (torch.from_numpy(values).to(self.device) for values in weights)
        regressions = response_regressions(*self._pair_vectors(pairs), *counts)
        return self._best_regression(response, regressions, penalty, self._pair_vectors, response)

    def fit_lexical(self, observed: ObservedPairs, penalty: int | None) -> int:
        """Fit f's lexical path to the characters of texts and queries; as `fit_response`."""
        lexical = self.model.text_model.lexical
        pairs, *weights = observed
        regressions = lexical_regressions(*self.collator.pair_texts(pairs), *weights)
        return self._best_regression(lexical, regressions, penalty, self.collator.pair_texts, lexical.logits)

    def _best_regression(
        self,
        module: nn.Module,
        regressions: Iterable[dict[str, Tensor]],
        penalty: int | None,
        inputs: Callable[[np.ndarray], tuple[Any, Any]],
        logits: Callable[..., Tensor],
    ) -> int:
        """Leave one of a module's regressions in place: by its penalty, or the best on the validation part."""
        weights = list(islice(regressions, None if penalty is None else penalty + 1))
        if penalty is None:
            pairs, place = distinct_pairs(self.data.columns, self.validation_metrics.rows)
            given, quality = inputs(pairs), []
            for found in weights:
                module.load_state_dict(found)
                with torch.inference_mode():
                    logit_P = logits(*given).cpu().numpy()
                quality.append(self.validation_metrics.quality(logit_P[place]))
            penalty = int(np.argmax(quality))
        module.load_state_dict(weights[penalty])
        return penalty

    def observed_pairs(self, rows: np.ndarray) -> ObservedPairs:
        """What came of the pairs of text and query of some rows."""
        rows = sampled(rows, FITTED_ROWS, self.recipe.seed)
        return observed_pairs(
            self.data.columns,
            rows,
            self.labels[rows],
            self.weights_of(rows),
            most=RESPONSE_PAIRS,
            seed=self.recipe.seed,
        )

    def _pair_vectors(self, pairs: np.ndarray) -> tuple[Tensor, Tensor]:
        text_id, query_id = torch.from_numpy(pairs.astype(np.int64)).to(self.device).unbind(1)
        vectors = self.table.vectors
        return vectors[text_id], vectors[query_id.clamp_min(0)] * (query_id >= 0).float()[:, None]

    def stack(self) -> dict[str, list[float]]:
        """Scales of the logit's parts and the intercept, best on the validation part: of all, and of g's alone.

        Returns:
            "all" and "tabular", each (7,): scales of `training.models.additive.PARTS`, then the intercept.
        """
        validation = self.validation_metrics
        parts = logit_parts(self.model, self.collator, self.table.vectors, validation.rows)
        self._validation_trees = parts[:, PARTS.index("trees")].copy()
        g_alone = parts.copy()
        g_alone[:, : len(TEXT_PARTS)] = 0
        found = {}
        for name, chosen in (("all", parts), ("tabular", g_alone)):
            scales, intercept = fit_stacking(chosen, validation.labels, validation.weights)
            found[name] = [*scales.tolist(), intercept]
        return found

    def grow_trees(self, rows: np.ndarray, num_trees: int | None) -> int:
        """Grow the trees of g on some rows; `num_trees` None: as many as the validation part finds best.

        Returns:
            How many there are in a model, on average.
        """
        settings, seed = self.recipe.tabular_model, self.recipe.seed
        self._validation_trees = None
        if settings.boosting_models == 0 or num_trees == 0:
            return 0
        sampling_rate = min(self.sampling_rate(rows, settings.negatives_per_positive), TREE_ROWS / len(rows))

        def draw(of: np.ndarray, model: int) -> np.ndarray:
            rng = np.random.default_rng([seed, model])
            return np.sort(downsample_negatives(self.labels, of, sampling_rate, rng))

        def learned(model: int) -> TreeRows:
            drawn = draw(rows, model)
            return self.collator.feature_matrix(drawn), self.labels[drawn], self.weights_of(drawn)

        def validated() -> TreeRows:
            measured = self.validation_metrics
            place = np.searchsorted(measured.rows, draw(measured.rows, 0))
            drawn = measured.rows[place]
            return self.collator.feature_matrix(drawn), self.labels[drawn], measured.weights[place]

        return self.model.trees.fit(
            learned,
            num_trees=num_trees or settings.num_trees,
            sampling_rate=sampling_rate,
            seed=seed,
            validation=validated() if num_trees is None else None,
        )

    def metrics(self) -> dict[str, float | None]:
        """Metrics of f + g on the validation part."""
        scores = self.validation_scores()
        return self.validation_metrics.compute(scores.text_logit + scores.tabular_logit)

    def validation_scores(self) -> Scores:
        """Scores of f and g on the measured rows of the validation part."""
        rows = self.validation_metrics.rows
        return score_rows(self.model, self.collator, self.table.vectors, rows, trees=self._validation_trees)
