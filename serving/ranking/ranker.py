"""From a request to a ranked list: features, scores, order, reasons. Knows nothing of HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from expectations.contracts.source import Source
from expectations.errors import ImplementationError, RequestError
from features.online.reader import Meeting, OnlineFeatures, Situation
from serving.ranking.explanations import reasons

if TYPE_CHECKING:
    from training.inference.batch_scoring import Scores
    from training.inference.predictor import Scorer


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One item of a list.

    Attributes:
        item_id: the item.
        text: what the model read of it.
        position: place in the list, from 1.
        probability: σ(f + g).
        f, g: the logit parts of words and of the past.
        reasons: what spoke for it, strongest first.
    """

    item_id: str
    text: str
    position: int
    probability: float
    f: float
    g: float
    reasons: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """An answered request.

    Attributes:
        items: best first.
        cold_start: nothing was known of the shopper.
        skipped: candidates that may not be shown, with the reason.
    """

    items: Sequence[Ranked]
    cold_start: bool
    skipped: Mapping[str, str]


class Ranker:
    """One model with the features that it reads. Safe to share between threads.

    Args:
        scorer: a loaded bundle.
        features: the features of requests.
        source: the shop's declaration: the kinds of its context columns, how far back behaviour counts.
    """

    def __init__(self, scorer: "Scorer", features: OnlineFeatures, *, source: Source) -> None:
        self.scorer, self.features, self.history_days = scorer, features, source.history_days
        self._numbers = {c.name for c in source.contracts()["exposures"].extras if c.extra == "numeric"}

    @property
    def bundle(self) -> str:
        """Hash of the model."""
        return self.scorer.hash

    def recommend(self, situation: Situation, k: int) -> Ranking:
        """The k candidates with the highest probability, best first; ties by item id.

        Raises:
            RequestError: the request names something unknown, or nothing may be shown.
            BundleError: the features do not have what the model was trained with.
            ImplementationError: the model gave a score that is no number.
        """
        if k < 1:
            raise RequestError(f"k is {k}; ask for at least 1 item")
        self._check_context(situation.context)
        meeting = self.features.meet(situation)
        scores = self.score(meeting)
        best = self._best(meeting, scores, k)
        return Ranking(
            items=self._ranked(meeting, scores, best),
            cold_start=not meeting.known,
            skipped=dict(meeting.skipped),
        )

    def score(self, meeting: Meeting) -> "Scores":
        """What the model says of every candidate of a meeting."""
        from training.data.interaction_history import History

        history = History(
            texts=[*meeting.topics, *meeting.remarks],
            events=[*meeting.visits, *meeting.remark_times],
            amounts=[*meeting.amounts, *(0.0 for _ in meeting.remarks)],
            days_ago=[*meeting.days, *meeting.remark_days],
            polarities=[*(0.0 for _ in meeting.topics), *meeting.remark_polarities],
        )
        queries = [meeting.query] * len(meeting.item_ids)
        return self.scorer.score(meeting.rows, texts=meeting.texts, queries=queries, history=history)

    def _check_context(self, context: Mapping[str, Any]) -> None:
        for name, value in context.items():
            if name in self._numbers:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise RequestError(f"context.{name} is {value!r}; give a number")
            elif not isinstance(value, str):
                raise RequestError(f"context.{name} is {value!r}; give words")

    @staticmethod
    def _best(meeting: Meeting, scores: "Scores", k: int) -> np.ndarray:
        logits = scores.f.astype(np.float64) + scores.g
        broken = np.flatnonzero(~np.isfinite(logits))
        if len(broken):
            item = meeting.item_ids[int(broken[0])]
            raise ImplementationError(
                f"the model's score of {item} is {logits[broken[0]]}, as of {len(broken)} of {len(logits)} "
                "candidates; train again, or go back to the model before (rollback)"
            )
        return np.lexsort((np.array(meeting.item_ids), -logits))[:k]

    def _ranked(self, meeting: Meeting, scores: "Scores", best: np.ndarray) -> list[Ranked]:
        names, contributions = self.scorer.explain_g(meeting.rows.iloc[best])
        lead = np.maximum(scores.f, scores.f - np.median(scores.f))
        return [
            Ranked(
                item_id=meeting.item_ids[at],
                text=meeting.texts[at],
                position=place + 1,
                probability=float(scores.probability[at]),
                f=float(scores.f[at]),
                g=float(scores.g[at]),
                reasons=reasons(
                    meeting,
                    at,
                    f=float(lead[at]),
                    attention=scores.attention[at],
                    names=names,
                    contributions=contributions[place],
                    history_days=self.history_days,
                ),
            )
            for place, at in enumerate(best.tolist())
        ]
