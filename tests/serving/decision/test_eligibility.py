"""Rules in CEL: what they exclude, how wrong ones are refused, and what becomes of one that fails on a pair."""

from datetime import UTC, datetime

import pytest

from expectations.contracts.decision import Rule
from expectations.errors import SettingError
from serving.decision.eligibility import Eligibility, Exclusion, compile_rules

VARIABLES = {
    "item.item_id": "string",
    "item.brand": "string",
    "item.min_age": "number",
    "item.categories": "strings",
    "item.valid_from": "timestamp",
    "user.age": "number",
    "user.region": "string",
    "context.channel": "string",
    "now": "timestamp",
}
ITEMS = {
    "item.item_id": ["c0", "c1", "c2", "c3"],
    "item.brand": ["Acme", "Acme", None, "Bond"],
    "item.min_age": [None, 18.0, 21.0, None],
    "item.categories": [["food", "tea"], ["drink", "wine"], [], []],
    "item.valid_from": [datetime(2026, 1, 1, tzinfo=UTC), None, None, datetime(2026, 11, 29, tzinfo=UTC)],
}
EVERYONE = [0, 1, 2, 3]
REQUEST = {
    "user.age": 20.0,
    "user.region": "north",
    "context.channel": "mail",
    "now": datetime(2026, 11, 29, 12, tzinfo=UTC),
}
FAILED = "the rule failed: "


def rules(*whens: str, **scenarios):
    declared = [Rule(name=f"rule {n}", when=when, **scenarios) for n, when in enumerate(whens, start=1)]
    return Eligibility(compile_rules(declared, VARIABLES), ITEMS)


def left(eligibility, request=REQUEST, candidates=EVERYONE, scenario="campaign"):
    excluded = eligibility.exclusions(candidates, request, scenario)
    return [place for place in candidates if place not in excluded]


@pytest.mark.parametrize(
    ("when", "stay"),
    [
        ("true", [0, 1, 2, 3]),
        ("item.brand == 'Acme'", [0, 1]),
        ("item.brand != null", [0, 1, 3]),
        ("item.brand in ['Bond', 'Coca']", [3]),
        ("item.min_age == null || user.age >= item.min_age", [0, 1, 3]),
        ("!('wine' in item.categories)", [0, 2, 3]),
        ("item.valid_from == null || now - item.valid_from > duration('24h')", [0, 1, 2]),
        ("item.valid_from > timestamp('2026-11-01T00:00:00Z')", [3]),
        ("now.getHours() < 20 && context.channel == 'mail'", [0, 1, 2, 3]),
        ("context.channel == 'store'", []),
        ("user.region == 'south' || item.item_id.startsWith('c3')", [3]),
    ],
)
def test_an_item_stays_where_the_rule_is_true(when, stay):
    assert left(rules(when)) == stay


def test_the_first_broken_rule_is_named_and_the_order_is_the_declaration_s():
    eligibility = rules("item.brand == 'Acme'", "item.min_age == null")
    excluded = eligibility.exclusions(EVERYONE, REQUEST, "campaign")
    assert {place: one.rule for place, one in excluded.items()} == {1: "rule 2", 2: "rule 1", 3: "rule 1"}
    assert excluded[1] == Exclusion(rule="rule 2", reason="the rule does not hold")


def test_a_rule_that_fails_on_a_pair_excludes_that_pair_and_no_other():
    eligibility = rules("user.age >= item.min_age")
    excluded = eligibility.exclusions(EVERYONE, REQUEST, "campaign")
    assert left(eligibility) == [1]  # 20 >= 18
    assert excluded[2].reason == "the rule does not hold"
    for place in (0, 3):
        assert excluded[place].reason.startswith(FAILED) and "overload" in excluded[place].reason
    unknown = eligibility.exclusions(EVERYONE, {**REQUEST, "user.age": None}, "campaign")
    assert all(unknown[place].reason.startswith(FAILED) for place in EVERYONE)
    assert rules("10 / int(user.age - 20.0) > 1").exclusions([0], REQUEST, "campaign")[0].reason == (
        FAILED + "divide by zero"
    )


def test_a_rule_of_the_item_alone_that_fails_on_one_item_excludes_that_item():
    eligibility = rules("item.brand.startsWith('A')")
    excluded = eligibility.exclusions(EVERYONE, {}, "campaign")
    assert (left(eligibility, {}), excluded[3].reason) == ([0, 1], "the rule does not hold")
    assert excluded[2].reason.startswith(FAILED)


def test_candidates_are_judged_by_their_place_in_the_catalogue():
    eligibility = rules("item.brand == 'Bond'", "user.age >= 18.0 && item.item_id == 'c3'")
    assert left(eligibility, candidates=[3, 1]) == [3]
    assert left(eligibility, candidates=[]) == []


def test_a_rule_holds_in_its_scenarios_alone():
    eligibility = rules("item.brand == 'Acme'", scenarios=("ad", "search"))
    assert left(eligibility, scenario="ad") == [0, 1]
    assert left(eligibility, scenario="campaign") == EVERYONE


def test_what_a_rule_reads_is_found():
    (compiled,) = compile_rules([Rule(name="r", when="item.min_age == null || user.age > 3.0")], VARIABLES)
    assert (compiled.of_item, compiled.of_request) == (("item.min_age",), ("user.age",))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (
            "item.brnd == 'Acme'",
            "line 1, column 5 of `when`: undeclared reference to 'item.brnd'; known are con",
        ),
        ("true &&\n  usr.age > 3.0", "line 2, column 6 of `when`: undeclared reference to 'usr.age'"),
        ("item.brand ==", "line 1, column 14 of `when`: Syntax error"),
        ("item.brand > 3", r"line 1, column 12 of `when`: found no matching overload for '_>_'"),
        ("user.age >= 18", r"column 10 of `when`: .*numbers are doubles, write 18.0"),
        ("item.brand", "line 1, column 1 of `when`: it gives a string, not true or false"),
        ("has(item.brand)", "it gives a string"),
        ("eval('1')", "undeclared reference to 'eval'"),
        ("__import__('os').system('true')", "undeclared reference to '__import__'"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_name_line_and_column(when, said):
    with pytest.raises(SettingError, match=f"decision rule 'rule 1', .*{said}"):
        rules(when)
