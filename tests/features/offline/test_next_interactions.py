import pandas as pd

from features.offline.engine import open_engine
from features.offline.interaction_history import grid, next_interactions
from features.views.shop import read_shop
from tests.features import small_shop

UNTIL = small_shop.START + pd.Timedelta(days=100)


def test_the_grid_has_a_whole_past_and_a_whole_future():
    times = grid(pd.Timestamp("2024-01-01 09:00").to_pydatetime(), pd.Timestamp("2024-03-25").to_pydatetime())
    assert [f"{time:%m-%d}" for time in times] == ["01-29", "02-26"]
    assert grid(times[0], times[0]) == []


def test_history_and_next_interactions_are_what_a_loop_finds(tmp_path):
    tables = small_shop.frames()
    connection = open_engine()
    shop = read_shop(connection, small_shop.land(tmp_path, tables), small_shop.SOURCE)
    found = connection.to_pandas(next_interactions(shop, UNTIL.to_pydatetime(), 60, 64, (1, 5)))
    items = tables["items"].set_index("item_id")
    paths = items["categories"].map(lambda path: ", ".join(path) if path is not None else None)
    topic_of = paths.fillna(items["text"])
    events = tables["events"].assign(topic=tables["events"]["item_id"].map(topic_of))
    assert len(found) > 10
    for row in found.itertuples():
        own = events[events["user_id"] == row.user_id]
        days = (own["event_timestamp"] - row.event_timestamp) / pd.Timedelta(days=1)
        assert set(row.topics) == set(own["topic"][(days < 0) & (days >= -60)])
        assert set(row.next_topics) == set(own["topic"][(days >= 0) & (days < 28)])
        assert row.event_timestamp + pd.Timedelta(days=28) <= UNTIL
