"""Why an item is in the list, in words: read off the model's own parts, never made up.

Two things speak for an item. f, the words: where the attention lies in the shopper's history, told if f
is positive or above that of the other candidates (what all have in common decides nothing). g, the past:
what each feature adds to it, told by the table in `serving.ranking.sentences`. A shopper of whom nothing is known
gets reasons from the item's side alone.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.online.reader import ScoringBatch
from serving.ranking.sentences import COLD_START, CONTEXT, ITEM, OWNERS, SENTENCES, USER, USER_ITEM

MAX_REASONS = 3
LEAST = 0.02
"""Logits: what adds less than this is not worth a word."""

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason.

    Attributes:
        theme: reasons of one theme say nearly the same.
        weight: logits that it adds.
        words: the sentence.
    """

    theme: str
    weight: float
    words: str


class Amount(float):
    """A number that can be said with its unit: f"{Amount(7):visit}" is "7 visits"."""

    def __format__(self, spec: str) -> str:
        """A unit, "n" for a plain number, "weekday", or one of Python's own formats.

        Raises:
            ValueError: it is not finite, so there is nothing to say.
        """
        if not math.isfinite(self):
            raise ValueError("an unknown number cannot be said")
        if spec in ("", "n"):
            return f"{float(self):,.0f}"
        if spec == "weekday":
            return _WEEKDAYS[int(self) % 7]
        if not spec.isalpha():
            return super().__format__("," + spec if spec.startswith(".") else spec)
        if 0 < self < 1:
            return f"less than a {spec}"
        return f"{float(self):,.0f} {spec}{'' if round(self) == 1 else 's'}"


def reasons(
    scoring_batch: ScoringBatch,
    at: int,
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
        at: the item's place among the candidates.
        text_logit: its logit of texts and context, or how far that lies above the other candidates'.
        attention: (H,) weight of each history entry for this item.
        names: feature names.
        contributions: (features,) what each adds to g, in logits.
        history_days: length of the history window.

    Returns:
        At most MAX_REASONS sentences, the strongest first, of different themes.
    """
    said = _Said(scoring_batch, at, history_days)
    weights = _weights(names, contributions, known=scoring_batch.known)
    found: Iterator[Reason] = _of_past(said, [(name, weight) for name, weight in weights if weight >= LEAST])
    if text_logit >= LEAST and scoring_batch.known:
        found = heapq.merge(found, _of_words(said, scoring_batch, text_logit, attention), key=_heaviest_first)
    chosen = _first_of_each_theme(found) or (
        [] if scoring_batch.known else _first_of_each_theme(_of_item(said))
    )
    return [reason.words for reason in chosen] or _against(said, weights)


def _weights(names: Sequence[str], contributions: np.ndarray, *, known: bool) -> list[tuple[str, float]]:
    """Features of the past that weigh something, the heaviest first."""
    # The clock is the same for all candidates: it never says why this one.
    found = [
        (name, weight * (0.5 if name.startswith(CONTEXT) else 1.0))
        for name, weight in zip(names, contributions.tolist(), strict=True)
        if LEAST <= abs(weight) < math.inf and (known or not name.startswith((USER, USER_ITEM)))
    ]
    return sorted(found, key=lambda named: -named[1])


def _of_past(said: "_Said", weights: Sequence[tuple[str, float]]) -> Iterator[Reason]:
    """What features add to g, where it can be said."""
    for name, weight in weights:
        sentence = said.sentence(name)
        if sentence:
            yield Reason(theme=sentence[0], weight=weight, words=sentence[1])


def _heaviest_first(reason: Reason) -> float:
    return -reason.weight


def _first_of_each_theme(found: Iterable[Reason]) -> list[Reason]:
    chosen: dict[str, Reason] = {}
    for reason in found:
        chosen.setdefault(reason.theme, reason)
        if len(chosen) == MAX_REASONS:
            break
    return [*chosen.values()]


def _against(said: "_Said", weights: Sequence[tuple[str, float]]) -> list[str]:
    """Where nothing speaks for the item: what speaks most against it is still true to say."""
    against = _of_past(said, [(name, weight) for name, weight in reversed(weights) if weight < 0])
    return [f"among what may be shown; against it: {reason.words}" for reason in itertools.islice(against, 1)]


class _Said:
    """One row's values under the names that sentences use."""

    def __init__(self, scoring_batch: ScoringBatch, at: int, history_days: int) -> None:
        row: Mapping[str, Any] = {str(name): value for name, value in scoring_batch.rows.iloc[at].items()}
        self.row = row
        self.noun = str(row.get("item_type") or "item")
        buys_only = _number(row.get("user_num_purchases")) == _number(row.get("user_num_events"))
        self.bought = "bought" if buys_only else "turned to"
        self.days = history_days

    def __getitem__(self, name: str) -> str | Amount:
        """What a sentence calls by that name.

        Raises:
            KeyError: the row has no such column.
        """
        if name in ("noun", "bought", "days"):
            return getattr(self, name)  # type: ignore[no-any-return]
        value = self.row[name]
        return value if isinstance(value, str) else Amount(value or 0.0)

    def sentence(self, name: str) -> tuple[str, str] | None:
        """Theme and words of a feature's value; None where nothing can be said."""
        value = self.row.get(name)
        known = SENTENCES.get(name)
        if known is None:
            return self._own_column(name, value)
        number = _number(value)
        template = known.unknown if number is None else known.zero if number == 0 else known.says
        try:
            return (known.theme, template.format_map(self)) if template else None
        except (KeyError, ValueError):  # this shop lacks a column that the sentence also names
            return None

    def _own_column(self, name: str, value: Any) -> tuple[str, str] | None:
        """A column that the shop declared: its name and value."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if name == "item_type":
            return name, f"it is a {self.noun}"
        side = next((side for side in OWNERS if name.startswith(side)), "")
        said = value if isinstance(value, str) else f"{float(value):,.6g}"
        owner = OWNERS.get(side, "the").format(noun=self.noun)
        column = name.removeprefix(side).removeprefix(f"{self.noun}_").replace("_", " ")
        return name, f"{owner} {column}: {said}"


def _of_words(said: _Said, scoring_batch: ScoringBatch, f: float, attention: np.ndarray) -> list[Reason]:
    """The history entry that the model looked at most, if it looked anywhere in particular."""
    count = min(len(scoring_batch.topics) + len(scoring_batch.feedback_texts), len(attention))
    if not count:
        return []
    entry = int(np.argmax(attention[:count]))
    if not attention[entry] > 0 or (count > 1 and attention[entry] <= attention[:count].mean() * 1.1):
        return []
    words = f"{_entry(said, scoring_batch, entry)}, which fits this {said.noun}'s words"
    return [Reason(theme="words", weight=f, words=words)]


def _entry(said: _Said, scoring_batch: ScoringBatch, entry: int) -> str:
    """An entry of the history in words: what the shopper did, or what the shopper said."""
    place = entry - len(scoring_batch.topics)
    if place >= 0:
        days = Amount(scoring_batch.feedback_days_ago[place])
        return f"said '{_short(scoring_batch.feedback_texts[place])}' {days:day} ago"
    visits, days = Amount(scoring_batch.sessions[entry]), Amount(scoring_batch.days[entry])
    ago = f"last {days:day} ago" if visits > 1 else f"{days:day} ago"
    return f"{said.bought} '{_short(scoring_batch.topics[entry])}' on {visits:visit}, {ago}"


def _of_item(said: _Said) -> Iterator[Reason]:
    """Cold start: what is known of the item, strongest claim first."""
    for place, name in enumerate(COLD_START):
        if name.startswith(ITEM) and (_number(said.row.get(name)) or 0.0) > 0:
            sentence = said.sentence(name)
            if sentence:
                yield Reason(theme=sentence[0], weight=-float(place), words=sentence[1])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rstrip()}…"


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
