"""What is served later than the store was filled is what the batch would say then, when nothing has happened since."""

import pandas as pd
import pytest

from features.offline.engine import open_engine
from features.offline.feature_rows import feature_tables
from features.online.ageing import AGE, aged
from features.views.shop import read_shop
from tests.features import small_shop

FILLED = small_shop.START + pd.Timedelta(days=120)
VIEWS = ("user_behaviour", "user_outcomes", "user_history")


@pytest.fixture(name="tables", scope="module")
def _tables():
    """A shop in which nothing has happened since."""
    tables = small_shop.frames()
    for name in ("events", "exposures", "feedback"):
        tables[name] = tables[name][tables[name]["event_timestamp"] < FILLED]
    return tables


def _users(folder, tables, as_of):
    """Features of every shopper, by name."""
    connection = open_engine()
    shop = read_shop(connection, small_shop.land(folder, tables), small_shop.SOURCE)
    computed = feature_tables(small_shop.SOURCE, shop, as_of.to_pydatetime())
    users: dict[str, dict] = {}
    for name in VIEWS:
        frame = connection.to_pandas(computed[name])
        for row in frame[frame["event_timestamp"] == as_of].to_dict("records"):
            users.setdefault(row["user_id"], {}).update(row)
    return {user: {n: None if v is pd.NaT else v for n, v in row.items()} for user, row in users.items()}


@pytest.mark.parametrize("days", [0.25, 7.5, 40.0])
def test_ages_are_those_of_the_request(tables, tmp_path, days):
    stored = _users(tmp_path / "stored", tables, FILLED)
    later = _users(tmp_path / "later", tables, FILLED + pd.Timedelta(days=days))
    ages = [name for name in later["u0"] if name.startswith(AGE)]
    assert len(stored) > 10 and len(ages) == 5
    forgotten = 0
    for user, expected in later.items():
        found = aged(stored[user], days, small_shop.SOURCE.history_days)
        for name in ages:
            assert found[name] == pytest.approx(expected[name], nan_ok=True), (user, name)
        for names, since in (
            ("topics", "topic_days"),
            ("items", "item_days"),
            ("feedback_texts", "feedback_days_ago"),
        ):
            known = dict(zip(expected[names], expected[since], strict=True))
            assert dict(zip(found[names], found[since], strict=True)) == pytest.approx(known), (user, names)
        forgotten += len(stored[user]["items"]) - len(found["items"])
        assert len(found["item_sessions"]) == len(found["item_firsts"]) == len(found["items"])
    assert forgotten > 0


def test_a_request_before_the_store_was_filled_is_served_as_stored(tables, tmp_path):
    user = _users(tmp_path / "stored", tables, FILLED)["u1"]
    assert aged(user, -3.0, 60) == user
