"""A candidate's feature values put into sentences, by the table in `sentences.toml`.

By hand, not by a template library: `str.format_map` with units is all that it takes.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from features.online.reader import ScoringBatch

_OWNERS = {"user_": "this shopper's", "item_": "this {noun}'s", "context_": "the"}
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """How a feature is said.

    Attributes:
        theme: features of one theme say nearly the same.
        text: for a value that is known and not 0.
        zero: for 0; None: nothing can be said.
        unknown: for NaN; None: nothing can be said.
    """

    theme: str
    text: str
    zero: str | None = None
    unknown: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason for an item; reasons of one theme say nearly the same, `logit` is what it adds."""

    theme: str
    logit: float
    text: str


@cache
def sentences() -> Mapping[str, Sentence]:
    """The sentences of every feature that each shop has, by feature name; read once a process."""
    table = tomllib.loads(files("serving.ranking").joinpath("sentences.toml").read_text(encoding="utf-8"))
    found = {
        name: _sentence(name, entry, **level)
        for key, level in table["levels"].items()
        for name, entry in ((f"user_item_{key}_{measure}", e) for measure, e in table["user_item"].items())
    }
    for theme, features in table["features"].items():
        found |= {name: _sentence(name, entry, theme=theme) for name, entry in features.items()}
    return found


def _sentence(name: str, entry: str | Mapping[str, str], *, theme: str, **level: str) -> Sentence:
    """An entry of the table with {value} and the level's words filled in."""
    filled = {"text": entry} if isinstance(entry, str) else dict(entry)
    for part in filled:
        for key, words in level.items():
            filled[part] = filled[part].replace(f"{{{key}}}", words)
        filled[part] = filled[part].replace("{value", f"{{{name}")
    return Sentence(theme=theme, **filled)


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


class CandidateRow:
    """One candidate's feature values, under the names that sentences use; `history_days` is the window's length."""

    def __init__(self, scoring_batch: ScoringBatch, candidate: int, history_days: int) -> None:
        self._values = {str(name): value for name, value in scoring_batch.rows.iloc[candidate].items()}
        buys_only = self.number("user_num_purchases") == self.number("user_num_events")
        self.noun = str(self._values.get("item_type") or "item")
        self.bought = "bought" if buys_only else "turned to"
        self._values |= {"noun": self.noun, "bought": self.bought, "days": str(history_days)}

    def __getitem__(self, name: str) -> str | Quantity:
        """What a sentence calls by that name.

        Raises:
            KeyError: the row has no such column.
        """
        value = self._values[name]
        return value if isinstance(value, str) else Quantity(value or 0.0)

    def number(self, name: str) -> float | None:
        """A column's value as a finite number, or None."""
        try:
            number = float(self._values[name])
        except (KeyError, TypeError, ValueError):
            return None
        return number if math.isfinite(number) else None

    def reason(self, name: str, logit: float) -> Reason | None:
        """A feature's value as a reason; None where nothing can be said."""
        sentence = sentences().get(name)
        if sentence is None:
            return self._own_column(name, logit)
        number = self.number(name)
        template = sentence.unknown if number is None else sentence.zero if number == 0 else sentence.text
        if not template:
            return None
        try:
            return Reason(theme=sentence.theme, logit=logit, text=template.format_map(self))
        except (KeyError, ValueError):  # this shop lacks a column that the sentence also names
            return None

    def _own_column(self, name: str, logit: float) -> Reason | None:
        """A column that the shop declared: its name and value."""
        value = self._values.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if name == "item_type":
            return Reason(theme=name, logit=logit, text=f"it is a {self.noun}")
        side = next((side for side in _OWNERS if name.startswith(side)), "")
        owner = _OWNERS.get(side, "the").format(noun=self.noun)
        column = name.removeprefix(side).removeprefix(f"{self.noun}_").replace("_", " ")
        shown = value if isinstance(value, str) else f"{float(value):,.6g}"
        return Reason(theme=name, logit=logit, text=f"{owner} {column}: {shown}")
