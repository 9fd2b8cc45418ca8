"""A shopper's features grow older between the time that the store was filled for and that of the request.

Ages are counted up to the request, and what is older than the history window by then is forgotten, as the batch would
have it. Counts and sums of windows, and what falls out of a window of 30 days, stay as they were stored.
"""

from collections.abc import Mapping
from typing import Any

AGE = "user_days_since_"
"""Beginning of the features that are days since the last time, however long ago it was."""

PARALLEL = (
    ("topics", "topic_sessions", "topic_amounts", "topic_days"),
    (
        "items",
        "item_sessions",
        "item_amounts",
        "item_recents",
        "item_coupons",
        "item_firsts",
        "item_days",
    ),
    ("feedback_texts", "feedback_counts", "feedback_sentiments", "feedback_days_ago"),
)
"""Lists of `features.views.user_history.user_history` that run in parallel; the last of each are days since."""

FIRSTS = "item_firsts"


def aged(user: Mapping[str, Any], days: float, history_days: int) -> dict[str, Any]:
    """A shopper's features so many days later, when nothing has happened since.

    Args:
        user: by name, as the store has them.
        days: from the time that they are of to the request; 0 or less changes nothing.
        history_days: how far back interactions count.
    """
    if days <= 0:
        return dict(user)
    later = {
        name: value + days if name.startswith(AGE) and value is not None else value
        for name, value in user.items()
    }
    for names in PARALLEL:
        places = [place for place, age in enumerate(user[names[-1]] or ()) if age + days <= history_days]
        later |= {name: [user[name][place] for place in places] for name in names}
        later[names[-1]] = [age + days for age in later[names[-1]]]
    # The first time within the window: what it became where the first one has left it, the store does not say.
    later[FIRSTS] = [min(age + days, history_days) for age in later[FIRSTS]]
    return later
