"""The declaration of a shop's decisions: [decision] of its `source.toml`, which POST /decide follows.

[decision]
exploration = "softmax"               # or "greedy" (default): the best first
temperature = 0.02                    # of softmax, in the unit of scores: probability x value - cost
holdout_fraction = 0.05               # share of requests that are served uniformly at random (default 0)
cost = "postage"                      # numeric extra column of items: what showing one costs, taken off its score
without_ledger = "refuse"             # or "answer": decide, but log nothing and hold no cap, while the ledger is away

[[decision.rules]]                    # an item stays where `when`, in CEL, is true; see serving/decision/eligibility.py
name = "of age"
when = "item.min_age == null || user.age >= item.min_age"
scenarios = ["campaign"]              # optional: where the rule holds

[[decision.caps]]                     # how often a shopper is shown something within a sliding window
name = "thrice a week"
per = "item"                          # or "shopper" (all items together), or an attribute of items, such as "brand"
at_most = 3
days = 7                              # hours = 12 for less
scenarios = ["campaign"]              # optional: where the cap holds, and which exposures count
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

from expectations.contracts.shop_tables import SCENARIOS
from expectations.contracts.toml_section import mapping, refuse_unknown
from expectations.errors import SettingError

ExplorationKind = Literal["greedy", "softmax"]
EXPLORATION_KINDS: tuple[ExplorationKind, ...] = ("greedy", "softmax")
WITHOUT_LEDGER = ("refuse", "answer")
PER_ITEM, PER_SHOPPER = "item", "shopper"

_MAX_NAME = 100


@dataclass(frozen=True, kw_only=True)
class ExplorationPolicy:
    """The distribution that shown lists are drawn from; `serving.decision.exploration` draws.

    Attributes:
        kind: greedy, or softmax over scores.
        temperature: of softmax, in the unit of the scores, above 0. Less than a billionth of the scores' range
            counts as that much.
        holdout_fraction: share of requests that are served uniformly at random, from 0 to 1.

    Raises:
        ValueError: a number is out of its range.
    """

    kind: ExplorationKind = "greedy"
    temperature: float = 1.0
    holdout_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in EXPLORATION_KINDS:
            raise ValueError(f"exploration is {self.kind!r}; use one of {', '.join(EXPLORATION_KINDS)}")
        if not _is_number(self.temperature) or not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature!r}; use a number above 0")
        if not _is_number(self.holdout_fraction) or not 0 <= self.holdout_fraction <= 1:
            raise ValueError(f"holdout_fraction is {self.holdout_fraction!r}; use a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of eligibility.

    Attributes:
        name: told of each item that it excludes.
        when: CEL expression; the item stays where it is true.
        scenarios: where it holds; empty: everywhere.
    """

    name: str
    when: str
    scenarios: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Cap:
    """How often a shopper is shown something within a sliding window that ends with the request.

    Attributes:
        name: told of each item that it excludes.
        per: `item`, `shopper` (all items together), or an attribute of items (those of one value together).
        at_most: exposures in the window.
        window: its length.
        scenarios: where it holds, and whose exposures count; empty: everywhere.
    """

    name: str
    per: str
    at_most: int
    window: timedelta
    scenarios: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class DecisionSettings:
    """How a shop decides.

    Attributes:
        rules: of eligibility, in the order in which they are asked.
        caps: on exposures.
        exploration: the distribution that lists are drawn from.
        cost: numeric extra column of items that is taken off their score; None: nothing is.
        without_ledger: what becomes of a request while the ledger is away: "refuse", or "answer" without a log.
    """

    rules: Sequence[Rule] = ()
    caps: Sequence[Cap] = ()
    exploration: ExplorationPolicy = field(default_factory=ExplorationPolicy)
    cost: str | None = None
    without_ledger: Literal["refuse", "answer"] = "refuse"


def read_decision(path: Path, declared: Any, *, numeric: Collection[str]) -> DecisionSettings:
    """Read and check [decision]; what a rule says is checked where the attributes are known, when a release loads.

    Args:
        path: of the `source.toml`, for messages.
        declared: the section.
        numeric: the numeric extra columns of items.

    Raises:
        SettingError: a setting is unknown or out of range.
    """
    given = _section(
        f"{path}: [decision]",
        declared,
        {"exploration", "temperature", "holdout_fraction", "cost", "without_ledger", "rules", "caps"},
    )
    rules = [_rule(where, one) for where, one in _numbered(path, "rules", given.get("rules", []))]
    caps = [_cap(where, one) for where, one in _numbered(path, "caps", given.get("caps", []))]
    names = [*(rule.name for rule in rules), *(cap.name for cap in caps)]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"{path}: [decision] has two rules or caps of the name {name!r}; rename one")
    cost = given.get("cost")
    if cost is not None and cost not in numeric:
        raise SettingError(
            f"{path}: [decision] cost is {cost!r}; name a column that [tables.items] extra declares as numeric"
        )
    without_ledger = given.get("without_ledger", WITHOUT_LEDGER[0])
    if without_ledger not in WITHOUT_LEDGER:
        raise SettingError(
            f"{path}: [decision] without_ledger is {without_ledger!r}; use one of {', '.join(WITHOUT_LEDGER)}"
        )
    return DecisionSettings(
        rules=tuple(rules),
        caps=tuple(caps),
        exploration=_exploration(f"{path}: [decision]", given),
        cost=cost,
        without_ledger=cast(Literal["refuse", "answer"], without_ledger),
    )


def _exploration(where: str, given: Mapping[str, Any]) -> ExplorationPolicy:
    kind = given.get("exploration", EXPLORATION_KINDS[0])
    if (kind == "softmax") != ("temperature" in given):
        raise SettingError(
            f"{where} exploration is {kind!r}; "
            + (
                "give its temperature, too"
                if kind == "softmax"
                else 'temperature is for "softmax", leave it out'
            )
        )
    try:
        return ExplorationPolicy(
            kind=kind,
            temperature=given.get("temperature", 1.0),
            holdout_fraction=given.get("holdout_fraction", 0.0),
        )
    except ValueError as error:
        raise SettingError(f"{where} {error}") from error


def _rule(where: str, declared: Any) -> Rule:
    given = _section(where, declared, {"name", "when", "scenarios"})
    when = given.get("when")
    if not isinstance(when, str) or not when.strip():
        raise SettingError(f"{where} when is {when!r}; write what must be true for an item to stay")
    return Rule(name=_name(where, given), when=when, scenarios=_scenarios(where, given))


def _cap(where: str, declared: Any) -> Cap:
    given = _section(where, declared, {"name", "per", "at_most", "days", "hours", "scenarios"})
    per, at_most = given.get("per"), given.get("at_most")
    if not isinstance(per, str) or not per.isidentifier():
        raise SettingError(
            f'{where} per is {per!r}; use "{PER_ITEM}", "{PER_SHOPPER}" or the name of an attribute of items'
        )
    if type(at_most) is not int or at_most < 1:
        raise SettingError(f"{where} at_most is {at_most!r}; use a whole number from 1")
    units = [unit for unit in ("days", "hours") if unit in given]
    if len(units) != 1:
        raise SettingError(f"{where} needs either days or hours: how long the window is")
    (unit,) = units
    length = given[unit]
    if not _is_number(length) or not 0 < length <= 36_500:
        raise SettingError(f"{where} {unit} is {length!r}; use a number above 0")
    return Cap(
        name=_name(where, given),
        per=per,
        at_most=at_most,
        window=timedelta(**{unit: length}),
        scenarios=_scenarios(where, given),
    )


def _name(where: str, given: Mapping[str, Any]) -> str:
    name = given.get("name")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= _MAX_NAME:
        raise SettingError(f"{where} name is {name!r}; call it what the API is to say of what it excludes")
    return name.strip()


def _scenarios(where: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    scenarios = given.get("scenarios", [])
    if not isinstance(scenarios, list) or any(one not in SCENARIOS for one in scenarios):
        raise SettingError(f"{where} scenarios is {scenarios!r}; use a list of {', '.join(SCENARIOS)}")
    return tuple(scenarios)


def _numbered(path: Path, name: str, declared: Any) -> list[tuple[str, Any]]:
    if not isinstance(declared, list):
        raise SettingError(f"{path}: [decision] {name} is {declared!r}; write each as [[decision.{name}]]")
    return [(f"{path}: [[decision.{name}]] {number}", one) for number, one in enumerate(declared, start=1)]


def _section(where: str, declared: Any, known: set[str]) -> Mapping[str, Any]:
    given = mapping(where, declared)
    refuse_unknown(where, given, known)
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
