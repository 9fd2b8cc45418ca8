"""From a request to a ranked list: features, scores, order, reasons. Knows nothing of HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from expectations.contracts.source import Source
from expectations.errors import ImplementationError, RequestError
from features.online.reader import DecisionRequest, OnlineFeatures, ScoringBatch
from serving.ranking.explanations import reasons

if TYPE_CHECKING:
    from training.inference.batch_scoring import Scores
    from training.inference.predictor import Predictor


MAX_TEXT = 500
"""Characters of an item's text in a reply."""


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """One item of the list, with what decided it: probability = σ(text_logit + tabular_logit)."""

    # the API's reply has it as it is, and its page is made from these descriptions
    item_id: Annotated[str, Field(description="the item", examples=["18:10000085475"])]
    text: Annotated[str, Field(description="how its text begins", examples=["Coupon for yogurt"])]
    position: Annotated[int, Field(description="place in the list, from 1", examples=[1])]
    probability: Annotated[
        float, Field(description="of the outcome (a redemption, a click, …)", examples=[0.0471])
    ]
    text_logit: Annotated[float, Field(description="f, what texts and context say", examples=[0.52])]
    tabular_logit: Annotated[
        float, Field(description="g, what past outcomes and behaviour say", examples=[-3.53])
    ]
    reasons: Annotated[
        list[str],
        Field(
            description="what spoke for it most, strongest first",
            examples=[["bought 'yogurt' on 7 visits, last 3 days ago, which fits this campaign's words"]],
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A request's result.

    Attributes:
        items: best first.
        cold_start: nothing was known of the shopper.
        skipped: candidates that may not be shown, with the reason.
    """

    items: Sequence[RankedCandidate]
    cold_start: bool
    skipped: Mapping[str, str]


class Ranker:
    """One model with the features that it reads. Safe to share between threads.

    Args:
        predictor: a loaded bundle.
        features: the features of requests.
        source: the shop's declaration: the kinds of its context columns, how far back behaviour counts.
    """

    def __init__(self, predictor: "Predictor", features: OnlineFeatures, *, source: Source) -> None:
        self.predictor, self.features, self.history_days = predictor, features, source.history_days
        self._numbers = {c.name for c in source.contracts()["exposures"].extras if c.extra == "numeric"}

    def recommend(self, decision_request: DecisionRequest, k: int) -> Ranking:
        """The k candidates with the highest probability, best first; ties by item id.

        Raises:
            RequestError: the request names something unknown, or nothing may be shown.
            BundleError: the features do not have what the model was trained with.
            ImplementationError: the model gave a score that is no number.
        """
        if k < 1:
            raise RequestError(f"k is {k}; ask for at least 1 item")
        self.check_context(decision_request.context)
        batch = self.features.scoring_batch(decision_request)
        scores = self.score(batch)
        order = np.lexsort((np.array(batch.item_ids), -finite_logits(batch, scores)))
        items = self.ranked(batch, scores, order[:k])
        return Ranking(items=items, cold_start=not batch.known, skipped=dict(batch.skipped))

    def score(self, scoring_batch: ScoringBatch) -> "Scores":
        """What the model says of every candidate of a scoring batch."""
        from training.data.interaction_history import InteractionHistory

        history = InteractionHistory(
            texts=[*scoring_batch.topics, *scoring_batch.feedback_texts],
            events=[*scoring_batch.sessions, *scoring_batch.feedback_counts],
            amounts=[*scoring_batch.amounts, *(0.0 for _ in scoring_batch.feedback_texts)],
            days_ago=[*scoring_batch.days, *scoring_batch.feedback_days_ago],
            sentiments=[*(0.0 for _ in scoring_batch.topics), *scoring_batch.feedback_sentiments],
        )
        queries = [scoring_batch.query] * len(scoring_batch.item_ids)
        return self.predictor.score(
            scoring_batch.rows, texts=scoring_batch.texts, queries=queries, history=history
        )

    def check_context(self, context: Mapping[str, Any]) -> None:
        """Check that the values of a context are of their kinds.

        Raises:
            RequestError: one is not.
        """
        for name, value in context.items():
            if name in self._numbers:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise RequestError(f"context.{name} is {value!r}; give a number")
            elif not isinstance(value, str):
                raise RequestError(f"context.{name} is {value!r}; give words")

    def ranked(
        self, scoring_batch: ScoringBatch, scores: "Scores", shown: np.ndarray
    ) -> list[RankedCandidate]:
        """Candidates of a batch with their reasons.

        Args:
            scoring_batch: a request's.
            scores: of all of its candidates.
            shown: (m,) places in the batch, in the order of the list.
        """
        if not len(shown):
            return []
        names, contributions = self.predictor.tabular_contributions(scoring_batch.rows.iloc[shown])
        text_advantage = np.maximum(scores.text_logit, scores.text_logit - np.median(scores.text_logit))
        return [
            RankedCandidate(
                item_id=scoring_batch.item_ids[candidate],
                text=shortened(scoring_batch.texts[candidate]),
                position=rank + 1,
                probability=float(scores.probability[candidate]),
                text_logit=float(scores.text_logit[candidate]),
                tabular_logit=float(scores.tabular_logit[candidate]),
                reasons=reasons(
                    scoring_batch,
                    candidate,
                    text_logit=float(text_advantage[candidate]),
                    attention=scores.attention[candidate],
                    names=names,
                    contributions=contributions[rank],
                    history_days=self.history_days,
                ),
            )
            for rank, candidate in enumerate(shown.tolist())
        ]


def finite_logits(scoring_batch: ScoringBatch, scores: "Scores") -> np.ndarray:
    """The logits of all candidates, (k,) float64.

    Raises:
        ImplementationError: one is no number.
    """
    logits = scores.text_logit.astype(np.float64) + scores.tabular_logit
    broken = np.flatnonzero(~np.isfinite(logits))
    if len(broken):
        item = scoring_batch.item_ids[int(broken[0])]
        raise ImplementationError(
            f"the model's score of {item} is {logits[broken[0]]}, as of {len(broken)} of {len(logits)} "
            "candidates; train again, or go back to the model before (rollback)"
        )
    return np.asarray(logits)


def shortened(text: str) -> str:
    """The beginning of a text, at most MAX_TEXT characters."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
