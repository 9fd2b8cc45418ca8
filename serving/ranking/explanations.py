"""Why an item is in the list, in words: read off the model's own parts, never made up.

Two things speak for an item. f, the text model: where the attention lies in the interaction history, told if f
is positive or above that of the other candidates (what all have in common decides nothing). g, the tabular
model: what each feature adds to it, told by the table in `serving.ranking.sentences`. A cold-start user gets
reasons from the item's side alone.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from features.online.reader import ScoringBatch
from serving.ranking.sentences import CandidateRow, Quantity, Reason

MAX_REASONS = 3
MIN_LOGIT = 0.02
"""What adds less than this is not worth a word."""

COLD_START = ("item_popularity", "item_topic_lift", "item_outcome_lift", "item_num_exposures")
"""What can always be said of an item when nothing is known of the shopper, the strongest claim first."""

_MAX_TEXT_LENGTH = 60


def reasons(
    scoring_batch: ScoringBatch,
    candidate: int,
    *,
    text_logit: float,
    attention: np.ndarray,
    names: Sequence[str],
    contributions: np.ndarray,
    history_days: int,
) -> list[str]:
    """The two or three strongest reasons for one item.

    Args:
        scoring_batch: the shopper and the candidates.
        candidate: the item's place among the candidates.
        text_logit: its logit of texts and context, or how far that lies above the other candidates'.
        attention: (H,) weight of each history entry for this item.
        names: feature names.
        contributions: (features,) what each adds to g, in logits.
        history_days: length of the history window.

    Returns:
        At most MAX_REASONS sentences, the strongest first, of different themes. Where nothing speaks for the
        item, what speaks most against it: that is still true to say.
    """
    known = scoring_batch.known
    row = CandidateRow(scoring_batch, candidate, history_days)
    logits = _contributions(names, contributions, known=known)
    found = _tabular_reasons(row, ((name, logit) for name, logit in logits if logit >= MIN_LOGIT))
    if known and text_logit >= MIN_LOGIT:
        text_reasons = _text_reasons(row, scoring_batch, text_logit, attention)
        found = heapq.merge(found, text_reasons, key=lambda reason: -reason.logit)
    chosen = _first_of_each_theme(found)
    if not chosen and not known:
        told = ((name, 0.0) for name in COLD_START if (row.number(name) or 0.0) > 0)
        chosen = _first_of_each_theme(_tabular_reasons(row, told))
    if chosen:
        return chosen
    against = _tabular_reasons(row, ((name, logit) for name, logit in reversed(logits) if logit < 0))
    return [f"among what may be shown; against it: {reason.text}" for reason in itertools.islice(against, 1)]


def _contributions(
    names: Sequence[str], contributions: np.ndarray, *, known: bool
) -> list[tuple[str, float]]:
    """Features that add something to g, the strongest first."""
    # The clock is the same for all candidates: it never says why this one.
    found = [
        (name, logit * (0.5 if name.startswith("context_") else 1.0))
        for name, logit in zip(names, contributions.tolist(), strict=True)
        if MIN_LOGIT <= abs(logit) < math.inf and (known or not name.startswith("user_"))
    ]
    return sorted(found, key=lambda named: -named[1])


def _tabular_reasons(row: CandidateRow, logits: Iterable[tuple[str, float]]) -> Iterator[Reason]:
    """What features add to g, where it can be said."""
    return filter(None, (row.reason(name, logit) for name, logit in logits))


def _first_of_each_theme(found: Iterable[Reason]) -> list[str]:
    chosen: dict[str, str] = {}
    for reason in found:
        chosen.setdefault(reason.theme, reason.text)
        if len(chosen) == MAX_REASONS:
            break
    return [*chosen.values()]


def _text_reasons(
    row: CandidateRow, scoring_batch: ScoringBatch, text_logit: float, attention: np.ndarray
) -> Iterator[Reason]:
    """The history entry that the model looked at most, if it looked anywhere in particular."""
    weights = attention[: len(scoring_batch.topics) + len(scoring_batch.feedback_texts)]
    if not len(weights):
        return
    entry = int(np.argmax(weights))
    if weights[entry] > 0 and (len(weights) == 1 or weights[entry] > weights.mean() * 1.1):
        text = f"{_history_entry(row, scoring_batch, entry)}, which fits this {row.noun}'s words"
        yield Reason(theme="text", logit=text_logit, text=text)


def _history_entry(row: CandidateRow, scoring_batch: ScoringBatch, entry: int) -> str:
    """An entry of the history in words: what the shopper did, or what the shopper said."""
    place = entry - len(scoring_batch.topics)
    if place >= 0:
        days = Quantity(scoring_batch.feedback_days_ago[place])
        return f"said '{_short(scoring_batch.feedback_texts[place])}' {days:day} ago"
    visits, days = Quantity(scoring_batch.sessions[entry]), Quantity(scoring_batch.days[entry])
    ago = f"last {days:day} ago" if visits > 1 else f"{days:day} ago"
    return f"{row.bought} '{_short(scoring_batch.topics[entry])}' on {visits:visit}, {ago}"


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[: _MAX_TEXT_LENGTH - 1].rstrip()}…"
