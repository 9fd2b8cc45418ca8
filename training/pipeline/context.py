"""The data, texts and modules of one fit, and the phases that train them."""

import numpy as np
import torch
from torch import Tensor

from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.dataset import Examples
from training.data.sampling import distinct_values, downsample_negatives, positions, rows_of, sampled
from training.data.split import TRAIN, VALIDATION
from training.data.transforms import Transforms, fit_transforms
from training.evaluation.validation import ValidationMetrics
from training.inference.batch_scoring import Scores, score_rows
from training.models.additive import AdditiveModel, build_model
from training.pipeline.corpus import EncodedCorpus
from training.pipeline.finetuning import FinetuningObjective
from training.pipeline.next_interaction_pretraining import NextInteractionObjective
from training.pipeline.tabular_training import TabularObjective
from training.pipeline.trainer import Phase
from training.pipeline.warm_start import Champion
from training.runtime.device import first_device

# Of more rows than these, transforms are fitted on a sample, and trees learn from fewer of the negatives.
FITTED_ROWS, TREE_ROWS = 1 << 20, 1 << 19
REFERENCES, REFERENCE_LENGTH = 32, 256  # reference users, entries of their histories


class FitContext:
    """The data, texts and modules of one fit.

    Args:
        data: the examples.
        recipe: the settings.
        champion: the bundle whose weights and transforms it starts with; None: from scratch.
        corpus: the texts, where another fit of the same recipe has encoded them.
    """

    def __init__(
        self,
        data: Examples,
        recipe: Recipe,
        champion: Champion | None = None,
        *,
        corpus: EncodedCorpus | None = None,
    ) -> None:
        self.data, self.recipe, self.champion = data, recipe, champion
        self.device = first_device()
        self.labels = data.columns["label"]
        self.train, self.validation = rows_of(data.part, TRAIN), rows_of(data.part, VALIDATION)
        self.validation_metrics = ValidationMetrics(data, self.validation, recipe.early_stopping.metric)
        self.transforms = champion.predictor.transforms if champion else self._fitted_transforms()
        self.collator = Collator(data, self.transforms)
        self.corpus = corpus or EncodedCorpus(data.texts, recipe, champion, self.device)
        self.encoder, self.table = self.corpus.encoder, self.corpus.embeddings
        self.pretrained_vectors = self.corpus.pretrained_vectors
        self.candidate_ids = distinct_values(data.columns, "text_id", self.train)
        known = distinct_values(data.columns, "history_id", self.train)
        self.topic_ids = self._topics(known)
        self.reference_places, self.reference_features = self._references(known)
        self.model = self.fresh_model()
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
            chosen = self.next_interactions_before(VALIDATION)
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

    def next_interactions_before(self, part: str) -> np.ndarray:
        """Numbers of the next-interaction windows that were over when a part began; all where it has no rows."""
        next_interactions = self.data.next_interactions
        if next_interactions is None:
            return np.zeros(0, dtype=np.int64)
        timestamps = self.data.columns["event_timestamp"][self.data.part == part]
        if not len(timestamps):
            return np.arange(len(next_interactions.event_timestamp))
        return next_interactions.ended_by(timestamps.min())

    def fresh_model(self) -> AdditiveModel:
        """New f and g and the pretrained language model, or all three as the champion's are."""
        torch.manual_seed(self.recipe.seed)
        self.corpus.reset()
        if self.champion:
            return self.champion.model().to(self.device)
        rate = float(np.float32(self.labels[self.train].sum() / len(self.train)))
        model = build_model(
            self.recipe,
            self.transforms,
            text_width=self.encoder.width,
            base_rate=rate,
            num_topics=len(self.topic_ids),
            reference_shape=self.reference_places.shape,
        ).to(self.device)
        vectors = self.table.vectors
        model.text_model.set_topics(
            vectors[self._ids(self.candidate_ids)], vectors[self._ids(self.topic_ids)]
        )
        model.text_model.reference_history.copy_(torch.from_numpy(self.reference_places))
        model.text_model.reference_features.copy_(torch.from_numpy(self.reference_features))
        return model.eval()

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Every later phase, the refit's too, begins with these weights of the language model."""
        self.corpus = self.corpus.starting_from(weights)
        self.model = self.fresh_model()

    def _ids(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(ids).to(self.device)

    def next_interaction_phase(self, name: str, *, before: str) -> Phase | None:
        """Pretraining of f on the next interactions whose window was over when a part began; None without any."""
        next_interactions, recipe, text_model = (
            self.data.next_interactions,
            self.recipe,
            self.model.text_model,
        )
        chosen = self.next_interactions_before(before)
        if next_interactions is None or not len(chosen) or recipe.pretraining.next_interaction_epochs == 0:
            return None
        objective = NextInteractionObjective(self.data, next_interactions, chosen, self.topic_ids, recipe)
        if objective.num_candidates == 0:
            return None
        return Phase(
            name=name,
            modules={"text_model": text_model},
            groups=[
                {
                    "params": [
                        value for key, value in text_model.named_parameters() if not key.endswith("_scale")
                    ],
                    "lr": recipe.pretraining.next_interaction_learning_rate,
                    "weight_decay": recipe.optimizer.weight_decay,
                }
            ],
            planned=recipe.pretraining.next_interaction_epochs,
            epochs=recipe.pretraining.next_interaction_epochs,
            batches=objective.batches,
            loss=lambda rows, rng: objective.loss(text_model, rows, rng),
            finish=lambda: None,
            validate=None,
        )

    def centre_text_model(self) -> None:
        """After pretraining: f is centred by reference users, and silent until its scales are chosen."""
        self.model.text_model.centred.fill_(1)
        self.scale_text_model(0.0, 0.0)

    def scale_text_model(self, personalised: float, popularity: float) -> None:
        """Set how much the personalised and the popularity part of f count."""
        text_model = self.model.text_model
        with torch.no_grad():
            text_model.personalised_scale.fill_(personalised)
            text_model.popularity_scale.fill_(popularity)

    def best_scales(self) -> tuple[float, float]:
        """Scales of f's two parts beside g: by turns the best by the recipe's metric on the validation part."""
        self.scale_text_model(1.0, 0.0)
        scores = self.validation_scores()
        self.scale_text_model(0.0, 1.0)
        columns = self.data.columns
        pairs = np.stack(
            [columns.at(name, self.validation_metrics.rows) for name in ("text_id", "query_id")], axis=1
        )
        _, first, pair = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        vectors = self.table.vectors
        popularity_logit = score_rows(
            self.model, self.collator, vectors, self.validation_metrics.rows[first]
        ).text_logit[pair.reshape(-1)]
        personalised = self.validation_metrics.best_scale(scores.tabular_logit, scores.text_logit)
        popularity = self.validation_metrics.best_scale(
            scores.tabular_logit + personalised * scores.text_logit, popularity_logit
        )
        if popularity:
            personalised = self.validation_metrics.best_scale(
                scores.tabular_logit + popularity * popularity_logit, scores.text_logit
            )
        return personalised, popularity

    def tabular_phase(self, name: str, rows: np.ndarray, *, epochs: int, validate: bool) -> Phase:
        """The phase that trains g alone."""
        recipe, model, tabular = self.recipe, self.model, self.model.tabular
        objective = TabularObjective(self.collator, self.data.columns, rows, recipe, self.device)

        def metrics() -> dict[str, float | None]:
            vectors = self.table.vectors
            scores = score_rows(
                model, self.collator, vectors, self.validation_metrics.rows, tabular_only=True
            )
            return self.validation_metrics.compute(scores.tabular_logit)

        rates = {"lr": recipe.tabular_model.learning_rate, "weight_decay": recipe.tabular_model.weight_decay}
        return Phase(
            name=name,
            modules={"model": model},  # f's weights lie in the checkpoint too
            groups=[{"params": list(tabular.parameters()), **rates}],
            planned=max(recipe.tabular_model.epochs, 1),
            epochs=epochs,
            batches=objective.batches,
            loss=lambda chosen, _rng: objective.loss(tabular, chosen),
            finish=lambda: None,
            validate=metrics if validate else None,
            before_step=objective.draw,
        )

    def grow_trees(self, rows: np.ndarray) -> None:
        """Grow the trees of g on some rows, where they are wanted and LightGBM is there."""
        recipe = self.recipe
        sampling_rate = min(recipe.tabular_model.negative_sampling_rate, TREE_ROWS / len(rows))
        if recipe.tabular_model.tree_weight == 0:
            return

        def draw(model: int) -> tuple[np.ndarray, np.ndarray]:
            rng = np.random.default_rng([recipe.seed, model])
            drawn = np.sort(downsample_negatives(self.labels, rows, sampling_rate, rng))
            return self.collator.feature_matrix(drawn), self.labels_of(drawn)

        self.model.trees.fit(
            draw,
            sampling_rate=sampling_rate,
            learning_rate=recipe.tabular_model.tree_learning_rate,
            seed=recipe.seed,
        )

    def finetuning_phase(self, name: str, rows: np.ndarray, *, epochs: int, validate: bool) -> Phase:
        """The phase that trains f and g together."""
        objective = FinetuningObjective(
            self.model,
            self.encoder,
            self.table,
            self.collator,
            labels=self.labels,
            rows=rows,
            recipe=self.recipe,
            device=self.device,
        )
        return Phase(
            name=name,
            modules={"model": self.model, "encoder": self.encoder},
            groups=objective.groups(),
            planned=max(self.recipe.finetuning.epochs, 1),
            epochs=epochs,
            batches=objective.batches,
            loss=objective.loss,
            finish=self.table.refresh if self.encoder.is_trainable else (lambda: None),
            validate=self.metrics if validate else None,
            after_step=self.encoder.allocate_ranks,
            before_step=objective.draw,
        )

    def metrics(self) -> dict[str, float | None]:
        """Metrics of f + g on the validation part."""
        scores = self.validation_scores()
        return self.validation_metrics.compute(scores.text_logit + scores.tabular_logit)

    def validation_scores(self) -> Scores:
        """Scores of f and g on the measured rows of the validation part."""
        return score_rows(self.model, self.collator, self.table.vectors, self.validation_metrics.rows)

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """Labels of some rows, float32."""
        return self.labels[rows].astype(np.float32)
