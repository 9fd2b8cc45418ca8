"""A shopper's features grow older between the time that the store was filled for and that of the request.

Ages are counted up to the request, and what is older than the history window by then is forgotten, as the batch would
have it. Counts and sums of windows, and what falls out of a window of 30 days, stay as they were stored.
"""

from collections.abc import Mapping
from typing import Any

from features.views.user_item import ITEM_LISTS, TOPIC_LISTS

AGE = "user_days_since_"
"""Beginning of the features that are days since the last time, however long ago it was."""

PARALLEL = {
    TOPIC_LISTS["days"]: tuple(TOPIC_LISTS.values()),
    ITEM_LISTS["days"]: tuple(ITEM_LISTS.values()),
    "feedback_days_ago": ("feedback_texts", "feedback_counts", "feedback_sentiments", "feedback_days_ago"),
}
"""List of days since the last time -> all lists of `features.views.user_history.user_history` beside it."""

FIRSTS = ITEM_LISTS["firsts"]


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
    for since, names in PARALLEL.items():
        places = [place for place, age in enumerate(user[since] or ()) if age + days <= history_days]
        later |= {name: [user[name][place] for place in places] for name in names}
        later[since] = [age + days for age in later[since]]
    # The first time within the window: what it became where the first one has left it, the store does not say.
    later[FIRSTS] = [min(age + days, history_days) for age in later[FIRSTS]]
    return later
