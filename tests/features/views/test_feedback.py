"""What shoppers said, by hand: texts, sentiments, order, and what a shop without feedback does not get."""

from datetime import datetime

import pandas as pd
import pytest

from expectations.contracts.source import read_source
from expectations.errors import SettingError
from features.offline.engine import open_engine
from features.offline.feature_rows import feature_tables
from features.views.feedback import feedback_summary, feedback_texts
from features.views.shop import Shop, read_shop
from features.views.user_history import user_history
from tests.features import small_shop

NOW = datetime(2024, 3, 1)
SAID = [
    ("f0", "u0", "p0", "far too salty", 1.0, "2024-02-20"),
    ("f1", "u0", None, "always friendly", None, "2024-02-28"),
    ("f2", "u0", "p0", None, 5.0, "2024-02-10"),
    ("f3", "u0", "p0", "far too salty", 2.0, "2024-02-25"),
    ("f4", "u0", "p1", "said at the moment itself", 5.0, "2024-03-01"),
    ("f5", "u0", "p1", "long ago", 5.0, "2023-01-01"),
    ("f6", "u1", "p0", " ", 5.0, "2024-02-28"),
    ("f7", "u1", None, "", 5.0, "2024-02-28"),
]


@pytest.fixture(name="shop")
def _shop(tmp_path) -> Shop:
    tables = small_shop.frames()
    feedback = pd.DataFrame(
        SAID, columns=["feedback_id", "user_id", "item_id", "text", "rating", "event_timestamp"]
    )
    tables["feedback"] = feedback.astype({"event_timestamp": "datetime64[us]"})
    return read_shop(open_engine(), small_shop.land(tmp_path, tables), small_shop.SOURCE)


def _entity_rows(shop, *users):
    return shop.users.filter(shop.users.user_id.isin(users)).select(
        "user_id", event_timestamp=pd.Timestamp(NOW)
    )


def test_a_history_holds_each_feedback_once_before_as_of_newest_first(shop):
    found = (
        user_history(shop, _entity_rows(shop, "u0", "u2"), 60, (1.0, 5.0)).to_pandas().set_index("user_id")
    )
    topic = found.loc["u0", "feedback_texts"][1].removesuffix(": far too salty")
    assert list(found.loc["u0", "feedback_texts"]) == ["always friendly", f"{topic}: far too salty", topic]
    assert list(found.loc["u0", "feedback_days_ago"]) == [2.0, 5.0, 20.0]
    assert list(found.loc["u0", "feedback_counts"]) == [1.0, 2.0, 1.0]
    assert list(found.loc["u0", "feedback_sentiments"]) == [0.0, -0.75, 1.0]
    assert list(found.loc["u2", "feedback_texts"]) == []


def test_feedback_that_says_nothing_is_left_out(shop):
    feedback = feedback_texts(shop, (1.0, 5.0)).to_pandas()
    assert len(feedback) == len(SAID) - 1 and (feedback["feedback_text"] != "").all()


def test_sentiment_is_cut_at_the_range_and_spans_all_ratings_without_one(shop):
    assert set(feedback_texts(shop, (2.0, 4.0)).to_pandas()["sentiment"].dropna()) == {-1.0, 1.0}
    assert set(feedback_texts(shop, None).to_pandas()["sentiment"].dropna()) == {-1.0, -0.5, 1.0}
    alike = shop.feedback.mutate(rating=3.0)
    assert (
        feedback_texts(Shop(**{**vars(shop), "feedback": alike}), None).to_pandas()["sentiment"].isna().all()
    )


def test_the_range_of_ratings_is_declared_and_bounds_them(tmp_path):
    declared = tmp_path / "source.toml"
    tables = "".join(f'[tables.{name}]\nlocation = "x.csv"\n' for name in ("items", "exposures"))
    declared.write_text(f'name = "shop"\n{tables}[features]\nrating_range = [1, 10]\n')
    rating = read_source(declared).contracts()["feedback"].column("rating")
    assert (rating.minimum, rating.maximum) == (1, 10)
    for wrong in ("5", "[5, 1]", "[1]", '["bad", "good"]', "[true, false]"):
        declared.write_text(f'name = "shop"\n{tables}[features]\nrating_range = {wrong}\n')
        with pytest.raises(SettingError, match="rating_range"):
            read_source(declared)


def test_summaries_count_what_a_user_said_and_what_was_said_of_an_item(shop):
    by_user = feedback_summary(shop, _entity_rows(shop, "u0", "u2"), "user_id", 60, (1.0, 5.0)).to_pandas()
    by_user = by_user.set_index("user_id")
    assert by_user.loc["u0", ["user_num_feedback", "user_sentiment"]].tolist() == [4.0, -0.125]
    assert by_user.loc["u2", ["user_num_feedback", "user_sentiment"]].tolist() == [0.0, 0.0]
    covering = shop.relations.filter(shop.relations.target_id == "p0").source_id.execute()[0]
    entity_rows = shop.items.filter(shop.items.item_id == covering).select(
        "item_id", event_timestamp=pd.Timestamp(NOW)
    )
    of_item = feedback_summary(shop, entity_rows, "item_id", 60, (1.0, 5.0)).to_pandas().iloc[0]
    assert of_item["item_num_feedback"] >= 4 and of_item["item_sentiment"] != 0


def test_a_shop_without_feedback_has_no_features_of_it(shop, tmp_path):
    tables = {name: frame for name, frame in small_shop.frames().items() if name != "feedback"}
    folders = small_shop.land(tmp_path / "without", tables)
    without = read_shop(open_engine(), folders, small_shop.SOURCE)
    for name, column in (("user_behaviour", "user_sentiment"), ("item_outcomes", "item_sentiment")):
        assert column in feature_tables(small_shop.SOURCE, shop, NOW)[name].columns
        assert column not in feature_tables(small_shop.SOURCE, without, NOW)[name].columns
