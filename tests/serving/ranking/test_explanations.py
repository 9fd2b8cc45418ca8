"""Reasons: read off attention and contributions, told in words, one of each theme."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from features.online.reader import ScoringBatch
from features.views.user_item import USER_ITEM_FEATURES
from serving.ranking.explanations import reasons
from serving.ranking.sentences import Quantity, sentences

ROW = {
    "item_type": "campaign",
    "item_popularity": 1234.0,
    "item_topic_lift": 1.25,
    "item_festival": "spring",
    "user_num_purchases": 9.0,
    "user_num_events": 9.0,
    "user_num_outcomes": 5.0,
    "user_num_exposures": 736.0,
    "user_outcome_lift": 1.0,
    "user_item_item_sessions": 4.0,
    "user_item_item_days": np.nan,
    "context_utc_weekday": 0.0,
}


def scoring_batch(*, known: bool = True, **changes) -> ScoringBatch:
    return ScoringBatch(
        item_ids=["c1"],
        texts=["Coupon for yogurt"],
        rows=pd.DataFrame([{**ROW, **changes}], index=["c1"]),
        query=None,
        topics=["yogurt", "dog food"] if known else [],
        sessions=[7.0, 1.0] if known else [],
        amounts=[20.0, 2.0] if known else [],
        days=[3.2, 40.0] if known else [],
        known=known,
        skipped={},
    )


def reasons_of(
    batch: ScoringBatch, *, text_logit: float = -1.0, attention=(0.0, 0.0), **contributions: float
) -> list[str]:
    return reasons(
        batch,
        0,
        text_logit=text_logit,
        attention=np.array(attention[: len(batch.topics) + len(batch.feedback_texts)]),
        names=list(contributions),
        contributions=np.array(list(contributions.values())),
        history_days=180,
    )


LOOKED = "bought {}, which fits this campaign's words"
OUTCOMES = "answered 5 of 736 earlier offers"
COVERED = "{} what this campaign covers 4 times in the last 180 days"
POPULARITY = "shoppers acted 1,234 times on what this campaign covers in the last 180 days"
TOPIC_LIFT = (
    "offers on the kinds of products that this campaign covers are answered 1.2 times as often as the average"
)


@pytest.mark.parametrize(
    ("text_logit", "attention", "said"),
    [
        (0.5, (0.7, 0.1), [LOOKED.format("'yogurt' on 7 visits, last 3 days ago")]),
        (0.5, (0.1, 0.7), [LOOKED.format("'dog food' on 1 visit, 40 days ago")]),
        (-0.5, (0.7, 0.1), []),  # attention speaks only where f is positive
        (0.5, (0.5, 0.5), []),  # and where it looks at something in particular
        (0.5, (0.0, 0.0), []),
    ],
)
def test_attention_is_told(text_logit, attention, said) -> None:
    assert reasons_of(scoring_batch(), text_logit=text_logit, attention=attention) == said


def test_what_was_said_is_told_as_said() -> None:
    said = {
        "feedback_texts": ["yogurt: my favourite"],
        "feedback_sentiments": [1.0],
        "feedback_days_ago": [9.0],
    }
    told = reasons_of(replace(scoring_batch(), **said), text_logit=0.5, attention=(0.1, 0.0, 0.7))
    assert told == ["said 'yogurt: my favourite' 9 days ago, which fits this campaign's words"]


STRONGEST = {"user_num_outcomes": 0.3, "user_outcome_lift": 0.9, "user_item_item_sessions": 0.5}


@pytest.mark.parametrize(
    ("row", "contributions", "said"),
    [
        # the strongest first, one of each theme, nothing too weak
        ({}, {**STRONGEST, "item_popularity": 0.001}, [OUTCOMES, COVERED.format("bought")]),
        # shoppers who do more than buy
        ({"user_num_events": 30.0}, {"user_item_item_sessions": 0.5}, [COVERED.format("turned to")]),
        # a shop's own column, by name and value
        ({}, {"item_festival": 0.5}, ["this campaign's festival: spring"]),
        ({"item_campaign_days": 33.0}, {"item_campaign_days": 0.5}, ["this campaign's days: 33"]),
        # what is not known is not told
        ({"item_festival": None}, {"item_festival": 0.5}, []),
        ({}, {"user_item_item_days": 0.5}, []),
        ({"user_num_exposures": np.nan}, {"user_num_outcomes": 0.5}, []),
        ({}, {"item_popularity": np.nan}, []),
        # of a new shopper, only what is known of the item
        (
            {"known": False},
            {"user_num_outcomes": 0.9, "user_item_item_sessions": 0.9},
            [POPULARITY, TOPIC_LIFT],
        ),
        ({"known": False}, {"item_popularity": 0.4}, [POPULARITY]),
        # where nothing speaks for it
        (
            {},
            {"user_num_outcomes": -0.3, "user_item_item_sessions": -0.1},
            [f"among what may be shown; against it: {OUTCOMES}"],
        ),
    ],
)
def test_features_are_told(row, contributions, said) -> None:
    batch = scoring_batch(**row)
    assert reasons_of(batch, text_logit=-1.0 if batch.known else 2.0, **contributions) == said


def test_every_sentence_can_be_said() -> None:
    values = {name: Quantity(3.0) for name in sentences()} | {
        "noun": "campaign",
        "bought": "bought",
        "days": "180",
    }
    for sentence in sentences().values():
        for template in filter(None, (sentence.text, sentence.zero, sentence.unknown)):
            assert "{" not in template.format_map(values)
    assert set(USER_ITEM_FEATURES) <= set(sentences())


@pytest.mark.parametrize(
    ("number", "spec", "said"),
    [
        (1.0, "visit", "1 visit"),
        (1234.4, "visit", "1,234 visits"),
        (0.3, "day", "less than a day"),
        (0.0, "time", "0 times"),
        (1234.567, ".2f", "1,234.57"),
        (2.0, "weekday", "Wednesday"),
        (0.125, ".1%", "12.5%"),
    ],
)
def test_amounts(number: float, spec: str, said: str) -> None:
    assert format(Quantity(number), spec) == said


def test_no_two_themes_say_the_same() -> None:
    themes: dict[str, set[str]] = {}
    for sentence in sentences().values():
        themes.setdefault(sentence.text, set()).add(sentence.theme)
    assert [says for says, of in themes.items() if len(of) > 1] == []
