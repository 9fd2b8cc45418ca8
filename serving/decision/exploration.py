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

A limit lets a list have so many items of a group; once a list has them, the others of the group are out of it, for both
arms alike. The largest of what is left is still drawn as if only that were there, since what was drawn before tells of
the noise of the rest no more than that it is smaller.

Shapes: N items, m = min(k, N) slots, L lists, G groups.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expectations.contracts.decision import ExplorationPolicy

EMPTY = -1
"""In place of an item: the list ended before this slot, as its limits left none."""

_MAX_SPREAD = 1e9
"""Scores are at most so many temperatures apart: Gumbel noise beside larger numbers loses its digits."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How many items of each group a list may have.

    Attributes:
        groups: (N,) the group of each item, from 0; -1: of none.
        room: (G,) items of each group, from 0.
    """

    groups: np.ndarray
    room: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ShownList:
    """A list that was drawn.

    Attributes:
        items: (m,) int64, places of the items shown, in the order of their slots; fewer where limits left none.
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
    scores: np.ndarray,
    k: int,
    policy: ExplorationPolicy,
    generator: np.random.Generator,
    limits: Sequence[Limit] = (),
) -> ShownList:
    """Fill k slots.

    Args:
        scores: (N,) what showing each item is worth; the same items in another order are another draw.
        k: how many slots; with fewer items, all are shown.
        policy: the distribution.
        generator: draws; `seeded_generator` of the request.
        limits: on the list.

    Raises:
        ValueError: k is below 1, or a score is no finite number.
    """
    lists, holdout = draw_lists(scores, k, policy, generator, limits, num_lists=1)
    shown = lists[0] != EMPTY
    propensities = list_propensities(scores, lists, policy, limits)[0][shown]
    return ShownList(
        items=lists[0][shown],
        propensities=propensities,
        probability=float(np.prod(propensities)),
        holdout=bool(holdout[0]),
    )


def draw_lists(
    scores: np.ndarray,
    k: int,
    policy: ExplorationPolicy,
    generator: np.random.Generator,
    limits: Sequence[Limit] = (),
    *,
    num_lists: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw many lists for one request.

    Returns:
        (L, m) int64 places of the items shown, EMPTY after a list's end; (L,) bool, whether the holdout drew the list.

    Raises:
        ValueError: as `draw_list`.
    """
    scores = _checked(scores)
    if k < 1:
        raise ValueError(f"k is {k}; show at least 1 item")
    holdout = generator.random(num_lists) < policy.holdout_fraction
    noise = generator.gumbel(size=(num_lists, len(scores)))
    worth = np.where(holdout[:, None], 0.0, scores if policy.kind == "greedy" else _logits(scores, policy))
    # greedy: noise decides among equals only
    keys = (-noise, -worth) if policy.kind == "greedy" else (-(worth + noise),)
    order = np.lexsort(keys, axis=1)
    if not limits:
        return order[:, :k], holdout
    lists = np.full((num_lists, min(k, len(scores))), EMPTY)
    open_items, rows = _OpenItems(num_lists, len(scores), limits), np.arange(num_lists)
    for slot in range(lists.shape[1]):
        left = np.take_along_axis(open_items.mask, order, axis=1)
        first = left.argmax(axis=1)
        lists[:, slot] = np.where(left[rows, first], order[rows, first], EMPTY)
        open_items.fill(lists[:, slot])
    return lists, holdout


def list_propensities(
    scores: np.ndarray, lists: np.ndarray, policy: ExplorationPolicy, limits: Sequence[Limit] = ()
) -> np.ndarray:
    """The probability of each slot's item given those of the slots before it, under the policy's mixture.

    Args:
        scores: (N,) of the items.
        lists: (L, m) places of items, each at most once a list; EMPTY after a list's end.
        policy: the distribution.
        limits: on the lists.

    Returns:
        (L, m) float64; 0 from the first slot on that the policy never fills so, 1 after a list's end.

    Raises:
        ValueError: a score is no finite number.
    """
    scores = _checked(scores)
    worth = scores if policy.kind == "greedy" else _logits(scores, policy)
    log_slot = _log_greedy if policy.kind == "greedy" else _log_softmax
    own, random = np.zeros(lists.shape), np.zeros(lists.shape)
    open_items = _OpenItems(len(lists), len(scores), limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        for slot, chosen in enumerate(lists.T):
            rows = np.flatnonzero(chosen != EMPTY)
            left, filled = open_items.mask[rows], chosen[rows]
            allowed = left[np.arange(len(rows)), filled]
            worths = np.where(left, worth, -np.inf)
            own[rows, slot] = np.where(allowed, log_slot(worths, filled), -np.inf)
            random[rows, slot] = np.where(allowed, -np.log(left.sum(axis=1)), -np.inf)
            open_items.fill(chosen)
        together = np.logaddexp(
            np.log(policy.holdout_fraction) + np.cumsum(random, axis=1),
            np.log1p(-policy.holdout_fraction) + np.cumsum(own, axis=1),
        )
        given = np.diff(together, axis=1, prepend=0.0)
    propensities: np.ndarray = np.exp(np.where(np.isneginf(together), -np.inf, given))
    return np.minimum(propensities, 1.0)  # a rounding above 1 is no probability


class _OpenItems:
    """Which items each list can still have: `mask`, (L, N) bool."""

    def __init__(self, num_lists: int, num_items: int, limits: Sequence[Limit]) -> None:
        self._limits = limits
        self._used = [np.zeros((num_lists, len(limit.room)), dtype=np.int64) for limit in limits]
        self.mask = np.ones((num_lists, num_items), dtype=bool)
        for limit in limits:
            full = np.flatnonzero(limit.room <= 0)
            self.mask &= ~np.isin(limit.groups, full)

    def fill(self, chosen: np.ndarray) -> None:
        """Put an item, (L,), into the next slot of each list, or EMPTY."""
        rows = np.flatnonzero(chosen != EMPTY)
        self.mask[rows, chosen[rows]] = False
        for limit, used in zip(self._limits, self._used, strict=True):
            group = np.where(chosen == EMPTY, -1, limit.groups[chosen])
            of_group = np.flatnonzero(group >= 0)
            group = group[of_group]
            used[of_group, group] += 1
            full = used[of_group, group] >= limit.room[group]
            of_group, group = of_group[full], group[full]
            self.mask[of_group] &= limit.groups[None, :] != group[:, None]


def _log_softmax(left: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(L,) log-probabilities of items by Plackett-Luce; `left` is (L, N) logits, -inf for those that are out."""
    best = left.max(axis=1, initial=-np.inf)
    total = best + np.log(np.exp(left - best[:, None]).sum(axis=1))
    return np.asarray(left[np.arange(len(left)), chosen] - total)


def _log_greedy(left: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(L,) log-probabilities of items where the best comes first: 1 / number of equals, or 0."""
    best = left.max(axis=1, initial=-np.inf)
    equals = (left == best[:, None]).sum(axis=1)
    return np.where(left[np.arange(len(left)), chosen] == best, -np.log(equals), -np.inf)


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
