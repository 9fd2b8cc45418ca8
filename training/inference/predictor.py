"""Serving a bundle: one user and some candidates in, f, g, probability and attention out.

Texts that the bundle knows are looked up; others are encoded by its language model and cached (LRU),
so that a new campaign's text is read once.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from expectations.contracts.bundle import Manifest, verify_bundle
from expectations.errors import BundleError, RequestError, SettingError
from training.config.recipe import recipe_from
from training.data.collate import Batch, Collator
from training.data.dataset import Examples, read_examples
from training.data.interaction_history import HISTORY_FEATURES, InteractionHistory
from training.data.split import TEST
from training.data.transforms import Transforms
from training.inference.batch_scoring import Scores, combined_scores, score_rows
from training.inference.bundle import EMBEDDINGS, ENCODER, MODEL, TRANSFORMS, TREES, TREES_STATE, known_texts
from training.inference.cache import CachedTextVectors, LRURowCache
from training.language.encoder import load_saved
from training.models.additive import AdditiveModel, build_model

CACHED_TEXTS = 20_000  # vectors of texts that the bundle does not know: 30 MB at a width of 384
CACHED_CANDIDATES = 100_000  # (candidate, query) pairs, four numbers each


class Predictor:
    """A bundle in memory. Safe to be called from several threads."""

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        model: AdditiveModel,
        transforms: Transforms,
        texts: CachedTextVectors,
    ) -> None:
        self.manifest, self.hash = manifest, digest
        self.model, self.transforms, self.texts = model, transforms, texts
        self.device = str(texts.vectors.device)
        self._user_independent = LRURowCache(self._compute_user_independent, CACHED_CANDIDATES)

    @classmethod
    def load(cls, bundle: Path, device: str = "cpu") -> "Predictor":
        """Load a bundle after comparing every file with its hash.

        Raises:
            BundleError: the bundle is incomplete, altered or of another format.
        """
        manifest, digest = verify_bundle(bundle)
        try:
            recipe = recipe_from(dict(manifest.recipe), where=f"{bundle}/manifest.json")
            transforms = Transforms.read(bundle / TRANSFORMS)
            encoder = load_saved(
                bundle / ENCODER, max_tokens=recipe.encoder.max_tokens, pooling=recipe.encoder.pooling
            )
            encoder.to(device)
            weights = load_file(bundle / MODEL)
            reference = weights["text_model.reference_history"]
            model = build_model(
                recipe,
                transforms,
                text_width=encoder.width,
                base_rate=0.5,
                num_topics=len(weights["text_model.topics"]),
                reference_shape=(reference.shape[0], reference.shape[1]),
            )
            model.trees.load_texts(
                [path.read_text(encoding="utf-8") for path in sorted((bundle / TREES).glob("*.txt"))]
            )
            model.load_state_dict({**weights, TREES_STATE: model.trees.get_extra_state()})
            vectors = load_file(bundle / EMBEDDINGS)["vectors"].to(device)
            places = known_texts(bundle)
        except (OSError, RuntimeError, KeyError, SafetensorError, SettingError) as error:
            raise BundleError(f"{bundle} cannot be loaded ({error}); repair that or train again") from error
        texts = CachedTextVectors(encoder, places, vectors, cache_size=CACHED_TEXTS)
        return cls(manifest, digest, model.to(device).eval(), transforms, texts)

    @torch.inference_mode()
    def score(
        self,
        rows: pd.DataFrame,
        *,
        texts: Sequence[str],
        queries: Sequence[str | None] | None = None,
        history: InteractionHistory | None = None,
    ) -> Scores:
        """Score k candidates for one user at one time.

        Args:
            rows: k rows with the bundle's numeric and categorical columns, in any order.
            texts: the candidates' texts.
            queries: each candidate's query or utterance, or None.
            history: the user's interactions before; None: none.

        Raises:
            BundleError: a column that the model was trained with is missing.
            RequestError: rows, texts and queries differ in number.
        """
        asked = list(queries) if queries is not None else [None] * len(texts)
        if not len(rows) == len(texts) == len(asked):
            raise RequestError(
                f"{len(rows)} rows, {len(texts)} texts, {len(asked)} queries; give one of each"
            )
        if not len(rows):
            empty = np.zeros(0, dtype=np.float32)
            return combined_scores(
                empty, empty, np.zeros((0, len(history.texts) if history else 0), np.float32)
            )
        batch, distinct = self._batch(rows, list(texts), asked, history or InteractionHistory())
        user_independent = self._user_independent.get([*zip(texts, asked, strict=True)])
        logits = self.model.calibrated_logits(
            batch.to(self.device), self.texts.get(distinct), user_independent_P4=user_independent
        )
        assert logits.attention is not None
        attention = logits.attention[:, : len(history.texts) if history else 0]
        return combined_scores(
            logits.text_logit.cpu().numpy(), logits.tabular_logit.cpu().numpy(), attention.cpu().numpy()
        )

    def _batch(
        self, rows: pd.DataFrame, texts: list[str], queries: Sequence[str | None], history: InteractionHistory
    ) -> tuple[Batch, list[str]]:
        place: dict[str, int] = {}
        for text in (*history.texts, *texts, *(query for query in queries if query is not None)):
            place.setdefault(text, len(place))
        entries = [place[text] for text in history.texts] or [-1]
        nothing = np.zeros((1, len(HISTORY_FEATURES)), np.float32)
        features = torch.from_numpy(history.features if history.texts else nothing)
        batch = Batch(
            numeric_features=torch.from_numpy(self.transforms.numeric_features(rows)),
            categorical_features=torch.from_numpy(self.transforms.categorical_features(rows)),
            candidate_query=torch.arange(len(texts)),
            candidate_text=torch.tensor([place[text] for text in texts]),
            query_text=torch.tensor([-1 if query is None else place[query] for query in queries]),
            lexical=torch.zeros(len(texts)),  # among what is cached of the pairs
            user=torch.zeros(len(texts), dtype=torch.long),
            history=torch.tensor(entries)[None],
            history_features=features[None],
        )
        return batch, list(place)

    def _compute_user_independent(self, pairs: list[tuple[str, str | None]]) -> Tensor:
        """The user-independent part of (text, query) pairs, (P, 4)."""
        lexical = self.model.text_model.lexical.logits(*zip(*pairs, strict=True))
        texts = self.texts.get([text for text, _ in pairs])
        queries = torch.zeros_like(texts)
        asked = [place for place, (_, query) in enumerate(pairs) if query is not None]
        if asked:
            queries[asked] = self.texts.get([query for _, query in pairs if query is not None])
        return self.model.text_model.user_independent(texts, queries, lexical)

    @torch.inference_mode()
    def tabular_contributions(self, rows: pd.DataFrame) -> tuple[list[str], np.ndarray]:
        """Contribution of each feature to g, in logits.

        To the networks' logit by ablation (Zeiler & Fergus 2014): what is lost where a number is set to the training
        part's median (unknown where most are unknown), a category to its most frequent value. To the trees' logit by
        TreeSHAP. Mixed as the two logits are. Contributions need not add up to g.

        Returns:
            Feature names, numeric first, and contributions (k, features) in logits.
        """
        names = [*self.transforms.numeric, *self.transforms.categorical]
        # Code 1 is the most frequent category; a column that was never known has none.
        most_frequent = [
            int(bool(self.transforms.category_vocabularies[name])) for name in self.transforms.categorical
        ]
        added = self.model.tabular_contributions(
            torch.from_numpy(self.transforms.numeric_features(rows)).to(self.device),
            torch.from_numpy(self.transforms.categorical_features(rows)).to(self.device),
            torch.from_numpy(self.transforms.typical).to(self.device),
            torch.tensor(most_frequent, dtype=torch.long, device=self.device),
        )
        return names, added.cpu().numpy()

    def score_examples(
        self, examples: Path | Examples, mask: np.ndarray | None = None, *, with_attention: bool = False
    ) -> Scores:
        """Score rows of an examples folder, as `score` would one user at a time, in the first position.

        Args:
            examples: the folder, or what `read_examples` made of it.
            mask: (rows,) True for the rows to score; None: the test part.
            with_attention: keep the attention, (k, H).
        """
        data = read_examples(examples) if isinstance(examples, Path) else examples
        chosen = np.flatnonzero(data.part == TEST if mask is None else mask)
        vectors = self.texts.get(data.texts, cached=False)
        collator = Collator(
            data,
            self.transforms,
            served=np.ones(len(data.part), dtype=bool),
            lexical=self.model.text_model.lexical.logits,
        )
        return score_rows(self.model, collator, vectors, chosen, with_attention=with_attention)
