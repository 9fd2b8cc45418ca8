"""Why an item is in the list, in words: read off the model's own parts, never made up.

Two things speak for an item. f, the text model: where the attention lies in the shopper's history, told if f
is positive or above that of the other candidates (what all have in common decides nothing). g, the tabular model:
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
MIN_LOGIT = 0.02
"""Logits: what adds less than this is not worth a word."""

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MAX_TEXT_LENGTH = 60


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason.

    Attributes:
        theme: reasons of one theme say nearly the same.
        logit: logits that it adds.
        text: the sentence.
    """

    theme: str
    logit: float
    text: str


class Quantity(float):
    """A number that can be said with its unit: f"{Quantity(7):visit}" is "7 visits"."""

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
        At most MAX_REASONS sentences, the strongest first, of different themes.
    """
    row = _CandidateRow(scoring_batch, candidate, history_days)
    logits = _contributions(names, contributions, known=scoring_batch.known)
    found: Iterator[Reason] = _tabular_reasons(
        row, [(name, logit) for name, logit in logits if logit >= MIN_LOGIT]
    )
    if text_logit >= MIN_LOGIT and scoring_batch.known:
        found = heapq.merge(
            found, _text_reasons(row, scoring_batch, text_logit, attention), key=_heaviest_first
        )
    chosen = _first_of_each_theme(found) or (
        [] if scoring_batch.known else _first_of_each_theme(_cold_start_reasons(row))
    )
    return [reason.text for reason in chosen] or _strongest_objection(row, logits)


def _contributions(
    names: Sequence[str], contributions: np.ndarray, *, known: bool
) -> list[tuple[str, float]]:
    """Features of the past that weigh something, the heaviest first."""
    # The clock is the same for all candidates: it never says why this one.
    found = [
        (name, logit * (0.5 if name.startswith(CONTEXT) else 1.0))
        for name, logit in zip(names, contributions.tolist(), strict=True)
        if MIN_LOGIT <= abs(logit) < math.inf and (known or not name.startswith((USER, USER_ITEM)))
    ]
    return sorted(found, key=lambda named: -named[1])


def _tabular_reasons(row: "_CandidateRow", logits: Sequence[tuple[str, float]]) -> Iterator[Reason]:
    """What features add to g, where it can be said."""
    for name, logit in logits:
        sentence = row.sentence(name)
        if sentence:
            yield Reason(theme=sentence[0], logit=logit, text=sentence[1])


def _heaviest_first(reason: Reason) -> float:
    return -reason.logit


def _first_of_each_theme(found: Iterable[Reason]) -> list[Reason]:
    chosen: dict[str, Reason] = {}
    for reason in found:
        chosen.setdefault(reason.theme, reason)
        if len(chosen) == MAX_REASONS:
            break
    return [*chosen.values()]


def _strongest_objection(row: "_CandidateRow", logits: Sequence[tuple[str, float]]) -> list[str]:
    """Where nothing speaks for the item: what speaks most against it is still true to say."""
    against = _tabular_reasons(row, [(name, logit) for name, logit in reversed(logits) if logit < 0])
    return [f"among what may be shown; against it: {reason.text}" for reason in itertools.islice(against, 1)]


class _CandidateRow:
    """One row's values under the names that sentences use."""

    def __init__(self, scoring_batch: ScoringBatch, candidate: int, history_days: int) -> None:
        values: Mapping[str, Any] = {
            str(name): value for name, value in scoring_batch.rows.iloc[candidate].items()
        }
        self.values = values
        self.noun = str(values.get("item_type") or "item")
        buys_only = _number(values.get("user_num_purchases")) == _number(values.get("user_num_events"))
        self.bought = "bought" if buys_only else "turned to"
        self.days = history_days

    def __getitem__(self, name: str) -> str | Quantity:
        """What a sentence calls by that name.

        Raises:
            KeyError: the row has no such column.
        """
        if name in ("noun", "bought", "days"):
            return getattr(self, name)  # type: ignore[no-any-return]
        value = self.values[name]
        return value if isinstance(value, str) else Quantity(value or 0.0)

    def sentence(self, name: str) -> tuple[str, str] | None:
        """Theme and text of a feature's value; None where nothing can be said."""
        value = self.values.get(name)
        known = SENTENCES.get(name)
        if known is None:
            return self._own_column(name, value)
        number = _number(value)
        template = known.unknown if number is None else known.zero if number == 0 else known.text
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


def _text_reasons(
    row: _CandidateRow, scoring_batch: ScoringBatch, f: float, attention: np.ndarray
) -> list[Reason]:
    """The history entry that the model looked at most, if it looked anywhere in particular."""
    count = min(len(scoring_batch.topics) + len(scoring_batch.feedback_texts), len(attention))
    if not count:
        return []
    entry = int(np.argmax(attention[:count]))
    if not attention[entry] > 0 or (count > 1 and attention[entry] <= attention[:count].mean() * 1.1):
        return []
    text = f"{_entry(row, scoring_batch, entry)}, which fits this {row.noun}'s words"
    return [Reason(theme="text", logit=f, text=text)]


def _entry(row: _CandidateRow, scoring_batch: ScoringBatch, entry: int) -> str:
    """An entry of the history in words: what the shopper did, or what the shopper said."""
    place = entry - len(scoring_batch.topics)
    if place >= 0:
        days = Quantity(scoring_batch.feedback_days_ago[place])
        return f"said '{_short(scoring_batch.feedback_texts[place])}' {days:day} ago"
    visits, days = Quantity(scoring_batch.sessions[entry]), Quantity(scoring_batch.days[entry])
    ago = f"last {days:day} ago" if visits > 1 else f"{days:day} ago"
    return f"{row.bought} '{_short(scoring_batch.topics[entry])}' on {visits:visit}, {ago}"


def _cold_start_reasons(row: _CandidateRow) -> Iterator[Reason]:
    """Cold start: what is known of the item, strongest claim first."""
    for place, name in enumerate(COLD_START):
        if name.startswith(ITEM) and (_number(row.values.get(name)) or 0.0) > 0:
            sentence = row.sentence(name)
            if sentence:
                yield Reason(theme=sentence[0], logit=-float(place), text=sentence[1])


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_LENGTH else f"{text[: _MAX_TEXT_LENGTH - 1].rstrip()}…"


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
