"""Caps per item, group and shopper: what is out, and what room a list has."""

from datetime import timedelta

import numpy as np
import pytest

from expectations.contracts.decision import Cap, ExplorationPolicy
from expectations.errors import SettingError
from serving.decision.caps import Caps
from serving.decision.exploration import draw_lists

ITEM_IDS = ["c0", "c1", "c2", "c3", "c4"]
ATTRIBUTES = {"item.brand": ["Acme", "Acme", "Bond", None, "Bond"]}
EVERYONE = [0, 1, 2, 3, 4]


def cap(per="item", at_most=2, **settings):
    return Cap(
        **{"name": f"per {per}", "per": per, "at_most": at_most, "window": timedelta(days=7), **settings}
    )


def drawn(caps, shown, candidates=EVERYONE, scenario="campaign"):
    """Distinct lists of three that are drawn within the caps, as sets of item ids."""
    capped = Caps(caps, ITEM_IDS, ATTRIBUTES).apply(candidates, shown, scenario)
    lists, _ = draw_lists(
        np.zeros(len(candidates)),
        3,
        ExplorationPolicy(),
        np.random.default_rng(0),
        capped.limits,
        num_lists=500,
    )
    names = np.array([ITEM_IDS[place] for place in candidates] + [""])
    return capped, {frozenset(names[row]) - {""} for row in lists}


def test_an_item_that_was_shown_often_enough_is_out():
    capped, _ = drawn([cap()], {"c0": [2], "c1": [1], "c4": [3], "gone": [9]})
    assert list(capped.excluded) == [0, 4]
    assert capped.excluded[0].rule == "per item"
    assert capped.excluded[0].reason == "it was shown 2 times within 7 days"
    assert not capped.limits


def test_a_group_shares_its_room():
    capped, lists = drawn([cap("brand")], {"c0": [1], "c2": [1], "c4": [1], "c3": [7]})
    assert {place: one.reason for place, one in capped.excluded.items()} == {
        2: "items of its brand were shown 2 times within 7 days",
        4: "items of its brand were shown 2 times within 7 days",
    }
    assert lists == {frozenset({"c0", "c3"}), frozenset({"c1", "c3"})}  # c3 has no brand, c0 and c1 one place


def test_a_shopper_s_room_is_that_of_the_list():
    capped, lists = drawn([cap("shopper", 4)], {"c0": [1], "gone": [1]})
    assert not capped.excluded
    assert {len(shown) for shown in lists} == {2}
    capped, lists = drawn([cap("shopper", 4)], {"c0": [3], "gone": [1]})
    assert list(capped.excluded) == EVERYONE
    assert capped.excluded[3].reason == "items were shown 4 times within 7 days"
    assert lists == {frozenset()}


def test_a_list_itself_runs_over_no_cap():
    _, lists = drawn([cap("brand", 1)], {})
    assert lists == {frozenset({a, b, "c3"}) for a in ("c0", "c1") for b in ("c2", "c4")}


def test_caps_hold_in_their_scenarios_and_count_each_its_own_window():
    often = [cap(at_most=3), cap("brand", 2, scenarios=("ad",), window=timedelta(hours=6))]
    shown = {"c0": [3, 0], "c2": [1, 2]}
    capped, _ = drawn(often, shown)
    assert list(capped.excluded) == [0]
    capped, _ = drawn(often, shown, scenario="ad")
    assert {place: one.rule for place, one in capped.excluded.items()} == {
        0: "per item",
        2: "per brand",
        4: "per brand",
    }
    assert capped.excluded[4].reason.endswith("2 times within 6 hours")


def test_some_candidates_and_none():
    capped, lists = drawn([cap("brand", 1)], {"c2": [1]}, candidates=[4, 1, 0])
    assert list(capped.excluded) == [4]
    assert lists == {frozenset({"c0"}), frozenset({"c1"})}
    capped, lists = drawn([cap("brand", 1), cap()], {"c2": [1, 1]}, candidates=[])
    assert (capped.excluded, lists) == ({}, {frozenset()})
    assert Caps([cap(), cap("shopper")], [], {}).apply([], {"c2": [1, 1]}, "ad").excluded == {}


def test_a_cap_per_what_items_do_not_have_is_refused():
    with pytest.raises(
        SettingError, match=r"cap 'per colour' is per 'colour'.*use item, shopper or one of brand"
    ):
        Caps([cap("colour")], ITEM_IDS, ATTRIBUTES)
