"""A synthetic shop whose truth is known, so that the best probabilities that anyone could give are known too.

A user has one hidden taste among THEMES. It shows in the age group and in what the user looked at, and moves the click
on an offer of that theme; an offer's tone moves everybody's. Both stand in the offer's words and nowhere else, and the
offers of the test part are new ones. The best probability of a row is the exact posterior expectation (Bayes) from the
age group, the looks and the clicks of earlier requests, under the true effects.

Shapes: U users, K themes, N exposures.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tests.benchmarks.shops.shop import BEST, Shop, write_files

USERS, QUICK_USERS = 2500, 300
LOOKS, REQUESTS, OFFERS = 6, 2, 6  # of a user, of a user, of a request
DAYS, LOOK_DAYS = 100, 40  # exposures come after the days of looks
TEST_DAY, OFFERS_OF_PART = 85, 150
BASE, TASTE = -2.4, 2.0  # log-odds of a click; more of it on an offer of one's own theme
OWN_LOOKS, OWN_AGE = (
    0.6,
    0.5,
)  # chance that a look, an age group is that of the taste; the rest is spread evenly
START = pd.Timestamp("2024-01-01")
THEMES = {
    "garden": (
        "roses",
        "lawn mower",
        "watering can",
        "seeds",
        "greenhouse",
        "flower pots",
        "rake",
        "hedge shears",
    ),
    "kitchen": (
        "frying pan",
        "knives",
        "mixer",
        "baking tin",
        "cookbook",
        "spices",
        "teapot",
        "wine glasses",
    ),
    "running": (
        "running shoes",
        "sports watch",
        "shorts",
        "energy bars",
        "drinking bottle",
        "headband",
        "training plan",
    ),
    "music": (
        "guitar",
        "headphones",
        "piano stool",
        "sheet music",
        "records",
        "loudspeaker",
        "microphone",
        "drums",
    ),
    "baby": ("pram", "nappies", "cot", "teething ring", "baby food", "romper suit", "night light", "rattle"),
}
TONES = {
    "Half price today": 0.9,
    "Free delivery on": 0.5,
    "New in the shop": 0.1,
    "Back in stock": -0.2,
    "Please remember": -0.6,
    "Notice about": -1.0,
}


def write(_data: Path, folder: Path, quick: bool) -> None:
    """Draw the shop and its clicks; the best probabilities lie beside its files."""
    rng = np.random.default_rng(7)
    num_users = QUICK_USERS if quick else USERS
    themes, tones = list(THEMES), list(TONES)
    taste = rng.integers(len(themes), size=num_users)
    age = _like(rng, taste, OWN_AGE)
    looked_at = _like(rng, np.repeat(taste, LOOKS), OWN_LOOKS).reshape(num_users, LOOKS)
    offers = pd.DataFrame(
        {
            "item_id": [f"offer {number}" for number in range(2 * OFFERS_OF_PART)],
            "theme": rng.integers(len(themes), size=2 * OFFERS_OF_PART),
            "tone": rng.integers(len(tones), size=2 * OFFERS_OF_PART),
        }
    )
    offers["text"] = [_words(rng, themes[row.theme], tones[row.tone]) for row in offers.itertuples()]
    day = np.sort(rng.integers(LOOK_DAYS, DAYS, size=(num_users, REQUESTS)), axis=1)
    user = np.repeat(np.arange(num_users), REQUESTS * OFFERS)
    row_day = np.repeat(day.ravel(), OFFERS)
    shown = rng.integers(OFFERS_OF_PART, size=len(user)) + OFFERS_OF_PART * (row_day >= TEST_DAY)
    theme, tone = (offers[name].to_numpy()[shown] for name in ("theme", "tone"))
    logit_NK = (
        BASE
        + np.array(list(TONES.values()))[tone][:, None]
        + TASTE * (theme[:, None] == np.arange(len(themes)))
    )
    click = rng.random(len(user)) < _sigmoid(logit_NK[np.arange(len(user)), taste[user]])
    request = np.repeat(np.arange(num_users * REQUESTS), OFFERS)
    exposures = pd.DataFrame(
        {
            "exposure_id": [f"exposure {number}" for number in range(len(user))],
            "request_id": [f"request {number}" for number in request],
            "user_id": [f"user {number}" for number in user],
            "item_id": offers["item_id"].to_numpy()[shown],
            "event_timestamp": START + pd.to_timedelta(row_day * 24 + 12, unit="h"),
            "outcome": click,
            "outcome_timestamp": (START + pd.to_timedelta(row_day * 24 + 13, unit="h")).where(click),
        }
    )
    log_prior_UK = _log_evidence(age[:, None], OWN_AGE) + _log_evidence(looked_at, OWN_LOOKS)
    best = attainable(
        log_prior_UK, logit_NK, click, user, np.tile(np.repeat(np.arange(REQUESTS), OFFERS), num_users)
    )
    write_files(
        folder,
        "known",
        {
            "users": pd.DataFrame(
                {"user_id": [f"user {u}" for u in range(num_users)], "age_group": age.astype(str)}
            ),
            "items": _items(offers),
            "looks": _looks(rng, looked_at),
            "exposures": exposures,
        },
    )
    found = pd.DataFrame({"exposure_id": exposures["exposure_id"], "probability": best})
    found.to_parquet(folder / BEST, index=False)


def attainable(
    log_prior_UK: np.ndarray, logit_NK: np.ndarray, click: np.ndarray, user: np.ndarray, request: np.ndarray
) -> np.ndarray:
    """(N,) probability of a click, given all that was seen before its request.

    Args:
        log_prior_UK: log-probability of each taste before the first request, up to a constant.
        logit_NK: log-odds of a click under each taste.
        click: (N,) whether it was clicked.
        user: (N,) whose it is.
        request: (N,) number of the user's request, in order of time.
    """
    probability_NK = _sigmoid(logit_NK)
    known_UK, best = log_prior_UK.copy(), np.zeros(len(user))
    for number in range(request.max() + 1):
        rows = request == number
        weight_UK = np.exp(known_UK - known_UK.max(1, keepdims=True))
        weight_UK /= weight_UK.sum(1, keepdims=True)
        best[rows] = (weight_UK[user[rows]] * probability_NK[rows]).sum(1)
        seen = np.where(click[rows][:, None], probability_NK[rows], 1 - probability_NK[rows])
        np.add.at(known_UK, user[rows], np.log(seen))
    return best


def _like(rng: np.random.Generator, taste: np.ndarray, own: float) -> np.ndarray:
    """The taste itself with that chance, else another theme."""
    other = (taste + rng.integers(1, len(THEMES), size=len(taste))) % len(THEMES)
    return np.where(rng.random(len(taste)) < own, taste, other)


def _log_evidence(seen_US: np.ndarray, own: float) -> np.ndarray:
    """(U, K) log-probability of what `_like` gave, under each taste."""
    same = seen_US[:, :, None] == np.arange(len(THEMES))
    return np.where(same, np.log(own), np.log((1 - own) / (len(THEMES) - 1))).sum(1)


def _words(rng: np.random.Generator, theme: str, tone: str) -> str:
    return f"{tone}: {', '.join(rng.choice(THEMES[theme], size=3, replace=False))}"


def _items(offers: pd.DataFrame) -> pd.DataFrame:
    """Offers, which are shown, and products, which are looked at."""
    products = [(f"product {word}", word) for words in THEMES.values() for word in words]
    things = pd.DataFrame(products, columns=["item_id", "text"]).assign(item_type="product")
    return pd.concat([offers[["item_id", "text"]].assign(item_type="campaign"), things])


def _looks(rng: np.random.Generator, looked_at: np.ndarray) -> pd.DataFrame:
    names = list(THEMES.values())
    seconds = rng.integers(LOOK_DAYS * 86_400, size=looked_at.size)
    return pd.DataFrame(
        {
            "event_id": [f"look {number}" for number in range(looked_at.size)],
            "user_id": [f"user {number}" for number in np.repeat(np.arange(len(looked_at)), LOOKS)],
            "item_id": [f"product {rng.choice(names[theme])}" for theme in looked_at.ravel()],
            "event_timestamp": START + pd.to_timedelta(seconds, unit="s"),
        }
    )


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


SHOP = Shop(
    name="known",
    about=(
        "Synthetic: 2,500 users with one hidden taste each, which shows in an age group and in six products looked at; "
        "offers whose words say theme and tone, clicked by known effects; requests of six offers. The test part shows "
        "new offers. The best that can be known is computed by Bayes' rule and stands in the table."
    ),
    write=write,
)
