"""Logged propensities against 200,000 draws (chi-square), by hand on small lists, and at the edges."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import chisquare

from expectations.contracts.decision import ExplorationPolicy
from serving.decision.exploration import (
    EMPTY,
    Limit,
    draw_list,
    draw_lists,
    list_propensities,
    seeded_generator,
)

NUM_DRAWS = 200_000
SCORES = np.array([0.30, 0.10, 0.25, 0.05, 0.10])
TIED = np.array([2.0, 5.0, 5.0, 2.0, 5.0, 1.0])
POLICIES = {
    "softmax": (SCORES, ExplorationPolicy(kind="softmax", temperature=0.1)),
    "softmax, hot": (SCORES, ExplorationPolicy(kind="softmax", temperature=10.0)),
    "softmax, cold": (SCORES, ExplorationPolicy(kind="softmax", temperature=0.02)),
    "softmax with holdout": (
        SCORES,
        ExplorationPolicy(kind="softmax", temperature=0.05, holdout_fraction=0.2),
    ),
    "softmax in currency": (SCORES * 1e6, ExplorationPolicy(kind="softmax", temperature=1e5)),
    "greedy with ties": (TIED, ExplorationPolicy()),
    "greedy with ties and holdout": (TIED, ExplorationPolicy(holdout_fraction=0.3)),
    "greedy with holdout": (SCORES[:4], ExplorationPolicy(holdout_fraction=0.1)),
    "holdout alone": (SCORES, ExplorationPolicy(holdout_fraction=1.0)),
}


def every_list(num_items: int, k: int) -> np.ndarray:
    return np.array(list(permutations(range(num_items), k)))


def fit_p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square over all lists; those that are expected fewer than 5 times count together."""
    never = probabilities == 0
    assert counts[never].sum() == 0
    counts, expected = counts[~never], probabilities[~never] * counts.sum()
    if len(counts) == 1:
        return 1.0 if counts[0] == expected[0] else 0.0
    few = expected < 5
    counts = np.append(counts[~few], counts[few].sum() if few.any() else [])
    expected = np.append(expected[~few], expected[few].sum() if few.any() else [])
    return float(chisquare(counts, expected).pvalue)


def counted(lists: np.ndarray, possible: np.ndarray, num_items: int) -> np.ndarray:
    powers = num_items ** np.arange(lists.shape[1])
    codes, order = lists @ powers, np.argsort(possible @ powers)
    places = np.searchsorted((possible @ powers)[order], codes)
    return np.bincount(order[places], minlength=len(possible))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_lists_are_drawn_as_often_as_their_logged_probability_says(name, k):
    scores, policy = POLICIES[name]
    drawn, holdout = draw_lists(scores, k, policy, np.random.default_rng(7), num_lists=NUM_DRAWS)
    possible = every_list(len(scores), k)
    probabilities = list_propensities(scores, possible, policy).prod(axis=1)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-9)
    counts = counted(drawn, possible, len(scores))
    assert fit_p_value(counts, probabilities) > 1e-3
    assert holdout.mean() == pytest.approx(policy.holdout_fraction, abs=0.005)


def test_the_chi_square_finds_a_propensity_that_is_a_hundredth_off():
    """The test above can fail: logging the policy's own propensity, without the holdout, is found out."""
    scores, policy = SCORES, ExplorationPolicy(kind="softmax", temperature=0.1, holdout_fraction=0.02)
    drawn, _ = draw_lists(scores, 1, policy, np.random.default_rng(7), num_lists=NUM_DRAWS)
    possible = every_list(len(scores), 1)
    counts = counted(drawn, possible, len(scores))
    own = list_propensities(scores, possible, ExplorationPolicy(kind="softmax", temperature=0.1))
    assert fit_p_value(counts, own[:, 0]) < 1e-3
    assert fit_p_value(counts, list_propensities(scores, possible, policy)[:, 0]) > 1e-3


def test_lists_of_distinct_requests_follow_the_same_distribution():
    """One draw a request id, as it is served, instead of many by one generator."""
    scores, policy = POLICIES["softmax with holdout"]
    shown = [
        draw_list(scores, 2, policy, seeded_generator(f"r{number}", "u1")).items for number in range(20_000)
    ]
    possible = every_list(len(scores), 2)
    counts = counted(np.array(shown), possible, len(scores))
    assert fit_p_value(counts, list_propensities(scores, possible, policy).prod(axis=1)) > 1e-3


LIMITS = {
    "one of a group": [Limit(groups=np.array([0, 0, 1, 1, -1]), room=np.array([1, 2]))],
    "none of a group": [Limit(groups=np.array([0, 1, 1, 1, 1]), room=np.array([0, 2]))],
    "two limits, lists of several lengths": [
        Limit(groups=np.array([0, 0, 1, 1, 1]), room=np.array([1, 1])),
        Limit(groups=np.array([0, 1, 1, 0, 0]), room=np.array([2, 1])),
        Limit(groups=np.array([-1, 0, 0, -1, -1]), room=np.array([1])),
    ],
    "so many in all": [Limit(groups=np.zeros(5, dtype=int), room=np.array([2]))],
}


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", ["softmax with holdout", "greedy with holdout", "softmax"])
def test_lists_within_limits_are_drawn_as_often_as_their_logged_probability_says(name, limits):
    scores, policy = SCORES, POLICIES[name][1]
    drawn, _ = draw_lists(scores, 3, policy, np.random.default_rng(7), LIMITS[limits], num_lists=NUM_DRAWS)
    every = np.array(list(product([EMPTY, 0, 1, 2, 3, 4], repeat=3)))
    possible = every[[is_list(row) for row in every.tolist()]]
    # a list that could go on is not complete: its probability is that of its continuations
    codes = {tuple(row) for row in drawn.tolist()}
    probabilities = list_propensities(scores, possible, policy, LIMITS[limits]).prod(axis=1)
    whole = np.array([tuple(row) in codes or row[-1] != EMPTY for row in possible.tolist()])
    for row in codes:  # within the limits
        for limit in LIMITS[limits]:
            groups = limit.groups[[item for item in row if item != EMPTY]]
            counts = np.bincount(groups[groups >= 0], minlength=len(limit.room))
            assert (counts <= limit.room).all()
    assert probabilities[whole].sum() == pytest.approx(1.0, abs=1e-9)
    counts = counted(drawn + 1, possible[whole] + 1, len(scores) + 1)
    assert fit_p_value(counts, probabilities[whole]) > 1e-3


def is_list(row: list[int]) -> bool:
    items = [item for item in row if item != EMPTY]
    return row[: len(items)] == items and len(set(items)) == len(items)


def test_limits_by_hand():
    """Of 0 and 1 one may be shown: after 0, item 2 is all that is left."""
    policy = ExplorationPolicy(kind="softmax", temperature=1.0)
    limits = [Limit(groups=np.array([0, 0, -1]), room=np.array([1]))]
    lists = np.array([[0, 2, EMPTY], [2, 1, EMPTY], [0, 1, 2]])
    found = list_propensities(np.log([3.0, 2.0, 1.0]), lists, policy, limits)
    np.testing.assert_allclose(found, [[3 / 6, 1, 1], [1 / 6, 2 / 5, 1], [3 / 6, 0, 0]])
    shown = draw_list(np.log([3.0, 2.0, 1.0]), 3, policy, seeded_generator("r1", "u1"), limits)
    assert len(shown.items) == len(shown.propensities) == 2


def test_propensities_by_hand():
    """exp(score / temperature) is 3, 2, 1; a quarter of the requests is random."""
    scores = np.log([3.0, 2.0, 1.0])
    policy = ExplorationPolicy(kind="softmax", temperature=1.0, holdout_fraction=0.25)
    first = 0.75 * 3 / 6 + 0.25 / 3
    both = 0.75 * (3 / 6) * (2 / 3) + 0.25 / 6
    found = list_propensities(scores, np.array([[0, 1, 2]]), policy)
    np.testing.assert_allclose(found, [[first, both / first, 1.0]], rtol=1e-12)


def test_greedy_propensities_by_hand():
    """Two share the first place, then one; what greedy never shows has the holdout's probability alone."""
    scores = np.array([1.0, 5.0, 5.0])
    alone, mixed = ExplorationPolicy(), ExplorationPolicy(holdout_fraction=0.1)
    lists = np.array([[1, 2, 0], [0, 1, 2]])
    np.testing.assert_allclose(list_propensities(scores, lists, alone), [[0.5, 1, 1], [0, 0, 0]])
    off = [0.1 / 3, 1 / 2, 1.0]
    on = [0.9 / 2 + 0.1 / 3, (0.9 / 2 + 0.1 / 6) / (0.9 / 2 + 0.1 / 3), 1.0]
    np.testing.assert_allclose(list_propensities(scores, lists, mixed), [on, off])


def test_what_is_logged_of_a_drawn_list_is_its_propensity():
    scores, policy = POLICIES["softmax with holdout"]
    shown = draw_list(scores, 3, policy, seeded_generator("r1", "u1"))
    again = list_propensities(scores, shown.items[None], policy)[0]
    np.testing.assert_array_equal(shown.propensities, again)
    assert shown.probability == pytest.approx(again.prod())


def test_the_same_request_gives_the_same_list_and_others_give_others():
    scores, policy = np.zeros(30), ExplorationPolicy(kind="softmax")

    def shown(request_id: str, user_id: str = "u1") -> tuple[int, ...]:
        return tuple(draw_list(scores, 5, policy, seeded_generator(request_id, user_id)).items.tolist())

    assert shown("r1") == shown("r1")
    assert len({shown("r1"), shown("r2"), shown("r1", "u2"), shown("r", "1u1")}) == 4


def test_greedy_shows_the_best_first():
    shown = draw_list(SCORES[:4], 10, ExplorationPolicy(), seeded_generator("r1", "u1"))
    assert shown.items.tolist() == [0, 2, 1, 3]
    assert (shown.propensities.tolist(), shown.probability, shown.holdout) == ([1, 1, 1, 1], 1.0, False)


@pytest.mark.parametrize("kind", ["greedy", "softmax"])
def test_fewer_items_than_slots_and_none(kind):
    policy = ExplorationPolicy(kind=kind, holdout_fraction=0.5)
    few = draw_list(np.array([1.0, 2.0]), 5, policy, seeded_generator("r1", "u1"))
    assert sorted(few.items.tolist()) == [0, 1]
    assert few.propensities[1] == pytest.approx(1.0)
    none = draw_list(np.array([]), 5, policy, seeded_generator("r1", "u1"))
    assert (len(none.items), len(none.propensities), none.probability) == (0, 0, 1.0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-12, 1e-3, 1e300])
@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_numbers_of_any_size_give_probabilities(temperature, scale):
    scores = np.array([0.9, 0.1, 0.05, -0.3]) * scale
    policy = ExplorationPolicy(kind="softmax", temperature=temperature)
    possible = every_list(4, 4)
    probabilities = list_propensities(scores, possible, policy).prod(axis=1)
    assert probabilities.sum() == pytest.approx(1.0)
    if temperature < scale * 1e-2:  # cold: the best first, to the last slot
        assert draw_list(scores, 4, policy, seeded_generator("r1", "u1")).items.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_refused(broken):
    with pytest.raises(ValueError, match=r"the score of item 1 is (nan|inf|-inf), as of 1 of them"):
        draw_list(np.array([1.0, broken]), 1, ExplorationPolicy(), seeded_generator("r1", "u1"))


def test_scores_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="too far apart"):
        draw_list(np.array([-1.7e308, 1.7e308]), 1, ExplorationPolicy(), seeded_generator("r1", "u1"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "thompson"}, "exploration is 'thompson'"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"holdout_fraction": 1.5}, "holdout_fraction is 1.5"),
    ],
)
def test_a_policy_out_of_range_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ExplorationPolicy(**settings)
    with pytest.raises(ValueError, match="k is 0"):
        draw_list(SCORES, 0, ExplorationPolicy(), seeded_generator("r1", "u1"))
