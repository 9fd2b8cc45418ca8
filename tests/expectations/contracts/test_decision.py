"""What [decision] of a `source.toml` may declare, and how a wrong setting is refused."""

from datetime import timedelta

import pytest

from expectations.contracts.decision import Cap, DecisionSettings, ExplorationPolicy, Rule
from expectations.errors import SettingError
from tests.expectations.contracts.test_source import declare

TABLES = (
    '[tables.items]\nlocation = "items.csv"\nextra = { postage = "numeric", colour = "categorical" }\n'
    '[tables.exposures]\nlocation = "exposures.csv"\n'
)
RULE = '[[decision.rules]]\nname = "in stock"\nwhen = "item.stock > 0.0"\n'
CAP = '[[decision.caps]]\nname = "thrice"\nper = "item"\nat_most = 3\n'


def test_without_the_section_the_best_is_shown_first(tmp_path):
    assert declare(tmp_path).decision == DecisionSettings()
    assert declare(tmp_path).decision.exploration == ExplorationPolicy(kind="greedy", holdout_fraction=0)


def test_everything_that_can_be_declared(tmp_path):
    section = (
        '[decision]\nexploration = "softmax"\ntemperature = 0.02\nholdout_fraction = 0.05\ncost = "postage"\n'
    )
    section += 'without_ledger = "answer"\n'
    caps = (
        CAP
        + 'hours = 12\nscenarios = ["ad"]\n'
        + CAP.replace("thrice", "often").replace('"item"', '"colour"')
    )
    declared = declare(tmp_path, section + RULE + caps + "days = 0.5\n", tables=TABLES).decision
    assert declared == DecisionSettings(
        rules=(Rule(name="in stock", when="item.stock > 0.0"),),
        caps=(
            Cap(name="thrice", per="item", at_most=3, window=timedelta(hours=12), scenarios=("ad",)),
            Cap(name="often", per="colour", at_most=3, window=timedelta(hours=12)),
        ),
        exploration=ExplorationPolicy(kind="softmax", temperature=0.02, holdout_fraction=0.05),
        cost="postage",
        without_ledger="answer",
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('[decision]\nexplore = "greedy"\n', "unknown setting 'explore'"),
        ('[decision]\nexploration = "thompson"\n', "exploration is 'thompson'; use one of greedy, softmax"),
        ('[decision]\nexploration = "softmax"\n', "give its temperature"),
        ("[decision]\ntemperature = 1\n", "leave it out"),
        ('[decision]\nexploration = "softmax"\ntemperature = 0\n', "temperature is 0; use a number above 0"),
        ('[decision]\nexploration = "softmax"\ntemperature = "hot"\n', "temperature is 'hot'"),
        ("[decision]\nholdout_fraction = 1.5\n", "holdout_fraction is 1.5; use a number from 0 to 1"),
        ("[decision]\nholdout_fraction = true\n", "holdout_fraction is True"),
        ('[decision]\ncost = "colour"\n', "cost is 'colour'; name a column .* as numeric"),
        ('[decision]\nwithout_ledger = "perhaps"\n', "without_ledger is 'perhaps'"),
        ('[decision]\nrules = "all"\n', r"rules is 'all'; write each as \[\[decision.rules\]\]"),
        (RULE + RULE, "two rules or caps of the name 'in stock'"),
        (RULE.replace("when", "if"), r"\[\[decision.rules\]\] 1 has an unknown setting 'if'"),
        ('[[decision.rules]]\nname = "x"\n', "when is None; write what must be true"),
        ('[[decision.rules]]\nname = " "\nwhen = "true"\n', "name is ' '"),
        (RULE + 'scenarios = ["mail"]\n', r"scenarios is \['mail'\]; use a list of campaign"),
        (CAP, "needs either days or hours"),
        (CAP + "days = 1\nhours = 1\n", "needs either days or hours"),
        (CAP + "days = -1\n", "days is -1; use a number above 0"),
        (CAP.replace("3", "0") + "days = 1\n", "at_most is 0; use a whole number from 1"),
        (CAP.replace('"item"', '"two words"') + "days = 1\n", "per is 'two words'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, settings, says):
    with pytest.raises(SettingError, match=says):
        declare(tmp_path, settings, tables=TABLES)
