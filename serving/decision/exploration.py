"""Which items fill the slots, by a known distribution: every propensity is exact, of the mixture that was used.

A request is served by one of two arms. With probability `holdout_fraction` it is the random holdout, which shows
items uniformly at random; else the policy's own:

    softmax   Plackett-Luce: slot after slot, an item is drawn without replacement with probability
              proportional to exp(score / temperature). Drawn at once as the k largest of
              score / temperature + Gumbel noise (Kool, van Hoof, Welling 2019, "Stochastic Beams and Where to Find
              Them", https://arxiv.org/abs/1903.06059, section 2.3)
    greedy    the limit of softmax at temperature 0: the best first, equal scores in random order

Who learns from the log does not know the arm of an item, so what is logged is the mixture's:

    P(shown first, …, shown j) = sum over arms: P(arm) x P(shown first, …, shown j | arm)
    propensity of slot j       = P(shown first, …, shown j) / P(shown first, …, shown j - 1)

The product of a list's propensities is the probability of the whole list.

Shapes: N items, m = min(k, N) slots, L lists.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["greedy", "softmax"]
KINDS: tuple[Kind, ...] = ("greedy", "softmax")

_MAX_SPREAD = 1e9
"""Scores are at most so many temperatures apart: Gumbel noise beside larger numbers loses its digits."""


@dataclass(frozen=True, kw_only=True)
class ExplorationPolicy:
    """The distribution that lists are drawn from.

    Attributes:
        kind: greedy, or softmax over scores.
        temperature: of softmax, in the unit of the scores, above 0. Less than a billionth of the scores' range
            counts as that much.
        holdout_fraction: share of requests that are served uniformly at random, from 0 to 1.

    Raises:
        ValueError: a number is out of its range.
    """

    kind: Kind = "greedy"
    temperature: float = 1.0
    holdout_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; use a number above 0")
        if not 0 <= self.holdout_fraction <= 1:
            raise ValueError(f"holdout_fraction is {self.holdout_fraction}; use a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class ShownList:
    """A list that was drawn.

    Attributes:
        items: (m,) int64, places of the items shown, in the order of their slots.
        propensities: (m,) float64, of each slot given the slots before it.
        probability: of the whole list.
        holdout: whether the random holdout drew it.
    """

    items: np.ndarray
    propensities: np.ndarray
    probability: float
    holdout: bool


def seeded_generator(request_id: str, user_id: str) -> np.random.Generator:
    """The generator of one request: the same ids give the same draws."""
    seed = hashlib.sha256(f"{len(request_id)} {request_id} {user_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(seed))


def draw_list(
    scores: np.ndarray, k: int, policy: ExplorationPolicy, generator: np.random.Generator
) -> ShownList:
    """Fill k slots.

    Args:
        scores: (N,) what showing each item is worth; the same items in another order are another draw.
        k: how many slots; with fewer items, all are shown.
        policy: the distribution.
        generator: draws; `seeded_generator` of the request.

    Raises:
        ValueError: k is below 1, or a score is no finite number.
    """
    lists, holdout = draw_lists(scores, k, policy, generator, num_lists=1)
    propensities = list_propensities(scores, lists, policy)[0]
    return ShownList(
        items=lists[0],
        propensities=propensities,
        probability=float(np.prod(propensities)),
        holdout=bool(holdout[0]),
    )


def draw_lists(
    scores: np.ndarray, k: int, policy: ExplorationPolicy, generator: np.random.Generator, *, num_lists: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw many lists for one request.

    Returns:
        (L, m) int64 places of the items shown; (L,) bool, whether the holdout drew the list.

    Raises:
        ValueError: as `draw_list`.
    """
    scores = _checked(scores)
    if k < 1:
        raise ValueError(f"k is {k}; show at least 1 item")
    holdout = generator.random(num_lists) < policy.holdout_fraction
    noise = generator.gumbel(size=(num_lists, len(scores)))
    worth = np.where(holdout[:, None], 0.0, scores if policy.kind == "greedy" else _logits(scores, policy))
    if policy.kind == "greedy":  # noise decides among equals only
        order = np.lexsort((-noise, -worth), axis=1)
    else:
        order = np.argsort(-(worth + noise), axis=1)
    return order[:, :k], holdout


def list_propensities(scores: np.ndarray, lists: np.ndarray, policy: ExplorationPolicy) -> np.ndarray:
    """The probability of each slot's item given those of the slots before it, under the policy's mixture.

    Args:
        scores: (N,) of the items.
        lists: (L, m) places of items, each at most once a list.
        policy: the distribution.

    Returns:
        (L, m) float64; 0 from the first slot on that the policy never fills so.

    Raises:
        ValueError: a score is no finite number.
    """
    scores = _checked(scores)
    own = _log_greedy(scores, lists) if policy.kind == "greedy" else _log_softmax(_logits(scores, policy), lists)
    random = -np.log(len(scores) - np.arange(lists.shape[1], dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        together = np.logaddexp(
            np.log(policy.holdout_fraction) + np.cumsum(random),
            np.log1p(-policy.holdout_fraction) + np.cumsum(own, axis=1),
        )
        given = np.diff(together, axis=1, prepend=0.0)
    propensities: np.ndarray = np.exp(np.where(np.isneginf(together), -np.inf, given))
    return np.minimum(propensities, 1.0)  # a rounding above 1 is no probability


def _log_softmax(logits: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """(L, m) log-probabilities of slots by Plackett-Luce."""
    left = np.tile(logits, (len(lists), 1))
    found = np.empty(lists.shape)
    rows = np.arange(len(lists))
    for slot, chosen in enumerate(lists.T):
        best = left.max(axis=1)
        total = best + np.log(np.exp(left - best[:, None]).sum(axis=1))
        found[:, slot] = left[rows, chosen] - total
        left[rows, chosen] = -np.inf
    return found


def _log_greedy(scores: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """(L, m) log-probabilities of slots where the best is shown first: 1 / number of equals, or 0."""
    left = np.tile(scores, (len(lists), 1))
    found = np.empty(lists.shape)
    rows = np.arange(len(lists))
    for slot, chosen in enumerate(lists.T):
        best = left.max(axis=1)
        equals = (left == best[:, None]).sum(axis=1)
        found[:, slot] = np.where(left[rows, chosen] == best, -np.log(equals), -np.inf)
        left[rows, chosen] = -np.inf
    return found


def _logits(scores: np.ndarray, policy: ExplorationPolicy) -> np.ndarray:
    """(N,) scores in temperatures below the best."""
    below = scores - scores.max(initial=-np.inf)
    widest = -below.min(initial=0.0)
    return np.asarray(below / max(policy.temperature, widest / _MAX_SPREAD))


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise ValueError(f"the score of item {broken[0]} is {scores[broken[0]]}, as of {len(broken)} of them")
    with np.errstate(over="ignore"):
        if len(scores) and not np.isfinite(scores.max() - scores.min()):
            raise ValueError(f"scores reach from {scores.min():g} to {scores.max():g}; that is too far apart")
    return scores
