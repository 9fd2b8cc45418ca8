"""Converters, plain methods and metrics of the benchmark of shops, on small data."""

import numpy as np
import pandas as pd
import pytest

from expectations.contracts.shop_tables import CONTRACTS
from tests.benchmarks.harness import markdown, shared_data
from tests.benchmarks.shops import known, plain
from tests.benchmarks.shops.bench import OURS, compared, summary
from tests.benchmarks.shops.bench import plain_rows as plain_rows_of
from tests.benchmarks.shops.catalogue import SHOPS
from tests.benchmarks.shops.headlines import certain_pairs
from tests.benchmarks.shops.job import watched
from tests.benchmarks.shops.measures import MeasuredRows, gains, measured
from tests.benchmarks.shops.plain import METHODS, PlainRows, raw_columns
from tests.benchmarks.shops.shop import BEST, DECLARED
from training.data.dataset import read_examples
from training.evaluation.metrics import auc, log_loss, metrics_of_probabilities

FROM_SHARED = [name for name, shop in SHOPS.items() if shop.data is not None]


def written(name, tmp_path):
    """Files of a quick shop, by name; skipped where its data are absent."""
    shop = SHOPS[name]
    if reason := shop.missing(shared_data("")):
        pytest.skip(reason)
    shop.write(shared_data(shop.data or ""), tmp_path, True)
    assert (tmp_path / DECLARED).exists()
    return {path.stem: pd.read_parquet(path) for path in tmp_path.glob("*.parquet")}


def test_a_shop_without_its_data_says_what_is_missing(tmp_path) -> None:
    for name in FROM_SHARED:
        assert "SHARED_DATA" in SHOPS[name].missing(tmp_path)
    assert SHOPS["known"].missing(tmp_path) is None


def test_headlines_are_aggregates_of_anonymous_requests(tmp_path) -> None:
    shown = written("headlines", tmp_path)["exposures"]
    assert not {"user_id", "outcome"} & set(shown)
    assert (shown["clicks"] <= shown["impressions"]).all()
    assert shown.groupby("request_id").size().min() > 1
    assert (shown.groupby("request_id")["event_timestamp"].nunique() == 1).all()
    assert shown["event_timestamp"].dt.weekday.eq(0).all()


def test_pairs_are_of_one_test_and_picture_and_certain() -> None:
    arms = pd.DataFrame(
        [
            ("t", "a", "one", 1000, 50),
            ("t", "a", "two", 1000, 20),  # z = 3.6
            ("t", "a", "two", 1000, 45),  # no other than "one" by its rate
            ("t", "b", "three", 1000, 10),  # another picture
            ("u", "a", "four", 1000, 10),  # another test
        ],
        columns=["request_id", "picture", "headline", "impressions", "clicks"],
    )
    winner, loser = certain_pairs(arms)
    assert (winner.tolist(), loser.tolist()) == ([0], [1])


def test_all_tests_of_the_later_weeks_give_the_pairs_of_the_datasheet(tmp_path) -> None:
    if reason := SHOPS["headlines"].missing(shared_data("")):
        pytest.skip(reason)
    SHOPS["headlines"].write(shared_data("upworthy_headlines"), tmp_path, False)
    shown = pd.read_parquet(tmp_path / "exposures.parquet")
    winner, _ = certain_pairs(shown[shown["event_timestamp"] >= "2014-06-16"])
    assert len(winner) == pytest.approx(958, abs=10)


def test_mailing_leaves_out_who_got_no_mail(tmp_path) -> None:
    tables = written("mailing", tmp_path)
    assert set(tables["sent"]["segment"]) == set(tables["mails"]["item_id"])
    assert not {"visit", "conversion", "spend"} & set(tables["customers"])


def test_bandit_takes_the_affinity_to_the_item_shown(tmp_path) -> None:
    log = written("bandit", tmp_path)["log"]
    raw = pd.read_parquet(shared_data("open_bandit_small") / "random_men.parquet")
    row = log[log["campaign"] == "men"].iloc[0]
    original = raw.loc[int(row["exposure_id"].split()[1])]
    assert row["affinity"] == original[f"user-item_affinity_{original['item_id']}"]
    assert "user_id" not in log


def test_books_count_what_a_reader_liked(tmp_path) -> None:
    tables = written("books", tmp_path)
    totals = tables["users"].set_index("user_id").sum(axis=1)
    assert totals.sum() == len(tables["feedback"])
    assert set(tables["exposures"]["item_id"]) <= set(tables["items"]["item_id"])


def test_a_reader_of_books_is_asked_once_and_rated_others_before(tmp_path) -> None:
    tables = written("books", tmp_path)
    assert tables["exposures"]["user_id"].is_unique
    both = tables["exposures"].merge(tables["feedback"], on="user_id", suffixes=("", "_rated"))
    assert len(both) == len(tables["feedback"])
    assert (both["event_timestamp_rated"] < both["event_timestamp"]).all()
    assert (both["item_id"] == both["item_id_rated"]).mean() < 0.001  # five readers in the data


def test_reviews_are_each_shown_once(tmp_path) -> None:
    tables = written("reviews", tmp_path)
    assert tables["reviews"]["review"].is_unique
    assert tables["shown"]["shown"].nunique() == 1


def test_searches_are_graded_by_the_catalogue(tmp_path) -> None:
    tables = written("searches", tmp_path)
    products = tables["products"].set_index("item_id")
    rated = tables["rated"].join(products["categories"], on="item_id")
    assert set(rated["grade"]) == {0, 1, 2, 3}
    exact = rated[rated["style"] == "exact"]
    says = [query == path[2] for query, path in zip(exact["query_text"], exact["categories"], strict=True)]
    assert exact[says]["grade"].isin([2, 3]).any()
    assert set(exact[exact["grade"] == 3]["query_text"]) <= {path[2] for path in exact["categories"]}
    assert (rated.groupby("query")["query_text"].nunique() == 1).all()


def test_the_best_that_can_be_known_beats_the_mean_rate_and_is_calibrated(tmp_path) -> None:
    shown = written("known", tmp_path)["exposures"]
    best = pd.read_parquet(tmp_path / BEST)["probability"].to_numpy()
    label = shown["outcome"].to_numpy(float)
    assert abs(best.mean() - label.mean()) < 0.02
    assert auc(label, best) > 0.7
    assert log_loss(label, best) < log_loss(label, np.full(len(label), label.mean())) - 0.03


def test_what_can_be_known_is_bayes_rule() -> None:
    """Two tastes, equally likely; a click is four times as likely under the first, and so is the taste after it."""
    logit = np.log([[0.4 / 0.6, 0.1 / 0.9], [0.4 / 0.6, 0.1 / 0.9]])
    best = known.attainable(
        np.zeros((1, 2)), logit, np.array([True, False]), np.zeros(2, int), np.array([0, 1])
    )
    assert best == pytest.approx([0.25, 0.8 * 0.4 + 0.2 * 0.1])


def plain_rows(*, rows=600, queries=False, weight=1.0):
    """Rows whose label follows one word of the text and one category."""
    rng = np.random.default_rng(0)
    texts = [f"{'red' if number % 2 else 'blue'} thing {number}" for number in range(60)]
    text = rng.integers(len(texts), size=rows)
    kind = rng.integers(2, size=rows)
    rate = 0.1 + 0.4 * (text % 2) + 0.3 * kind
    label = (rng.random(rows) < rate).astype(float) if weight == 1 else rate
    return PlainRows(
        columns=pd.DataFrame({"kind": pd.Categorical.from_codes(kind, ["a", "b"])}),
        item=text.astype(str).astype(object),
        text=text,
        query=text if queries else np.full(rows, -1),
        texts=texts,
        label=label,
        weight=np.full(rows, weight),
        part=np.repeat(["train", "validation", "test"], [rows // 2, rows // 4, rows // 4]),
        vectors=lambda texts: np.array([[1.0, 0.0] if "red" in text else [0.0, 1.0] for text in texts]),
    )


@pytest.mark.parametrize("weight", [1.0, 500.0])
@pytest.mark.parametrize("method", METHODS)
def test_plain_methods_give_calibrated_probabilities_of_the_test_rows(method, weight) -> None:
    if method == plain.CATBOOST:
        pytest.importorskip("catboost")
    rows = plain_rows(weight=weight)
    found = plain.scores(method, rows, seed=0)
    test = rows.part == "test"
    assert found.shape == (test.sum(),)
    assert abs(found.mean() - rows.label[test].mean()) < 0.1
    if method != plain.CONSTANT:
        positive, negative = rows.label[test], 1 - rows.label[test]
        assert np.average(found, weights=positive) > np.average(found, weights=negative) + 0.02


@pytest.mark.parametrize("method", [plain.FROZEN, plain.TF_IDF])
def test_words_meet_their_query(method) -> None:
    rows = plain_rows(queries=True)
    assert np.isfinite(plain.scores(method, rows, seed=0)).all()


def test_raw_columns_have_no_outcome_no_words_and_no_names_of_rows() -> None:
    shown = pd.DataFrame(
        {
            "exposure_id": ["1", "2", "3", "4"],
            "user_id": ["u", "u", "v", "v"],
            "item_id": ["i", "j", "i", "j"],
            "event_timestamp": pd.to_datetime(["2024-01-01 10:00", "2024-01-02 11:00"] * 2),
            "outcome": [1.0, 0.0, 1.0, 0.0],
            "clicks": [1, 2, 3, 4],
            "query_text": ["a", "a", "b", "b"],
            "channel": [None, "web", "web", "web"],
        }
    )
    items = pd.DataFrame(
        {
            "item_id": ["i", "j"],
            "text": ["x", "y"],
            "categories": [["food", "fruit"], ["food"]],
            "value": [1.0, 2.0],
        }
    )
    found = raw_columns({"exposures": shown, "items": items}, CONTRACTS)
    assert list(found.index) == ["1", "2", "3", "4"]
    assert set(found) == {
        "user_id",
        "item_id",
        "channel",
        "hour",
        "weekday",
        "items_value",
        "items_category_1",
    }


def test_rows_of_an_examples_folder_name_their_own_texts_and_ask_for_the_first_place(examples) -> None:
    data = read_examples(examples)
    columns = pd.DataFrame({"position": np.full(len(data.part), 4.0, np.float32)})
    rows = plain_rows_of(data, columns, np.ones(len(data.part)), lambda _: np.zeros((0, 2)))
    test = rows.part == "test"
    assert set(rows.columns["position"][test]) == {1.0}
    assert set(rows.columns["position"][~test]) == {4.0}
    of_texts = [data.texts[number] for number in data.columns["text_id"]]
    assert [rows.texts[number] for number in rows.text] == of_texts
    asked = data.columns["query_id"] >= 0
    assert (rows.query[~asked] == -1).all()
    assert [rows.texts[number] for number in rows.query[asked]] == [
        data.texts[number] for number in data.columns["query_id"][asked]
    ]


def test_metrics_of_unweighted_rows_are_those_of_training() -> None:
    rng = np.random.default_rng(1)
    label = (rng.random(400) < 0.3).astype(float)
    score = np.round(np.clip(0.3 * label + rng.random(400) * 0.6, 0.01, 0.99), 2)
    group = rng.integers(60, size=400)
    found = measured(MeasuredRows(label=label, weight=np.ones(400), group=group, unit=group), score)
    assert found["auc"][0] == pytest.approx(auc(label, score))
    assert found["log_loss"][0] == pytest.approx(log_loss(label, score))
    counted = np.isin(group, [g for g in range(60) if 0 < label[group == g].sum() < (group == g).sum()])
    theirs = metrics_of_probabilities(label[counted], score[counted], group[counted])
    assert found["ndcg_at_10"][0] == pytest.approx(theirs["ndcg_at_10"])


def test_an_aggregate_counts_as_its_impressions() -> None:
    single = MeasuredRows(
        label=np.array([1.0, 0, 0, 1, 0]),
        weight=np.ones(5),
        group=np.zeros(5),
        unit=np.array([0, 0, 0, 1, 1]),
    )
    together = MeasuredRows(
        label=np.array([1 / 3, 1 / 2]), weight=np.array([3.0, 2.0]), group=np.zeros(2), unit=np.array([0, 1])
    )
    ours = measured(single, np.array([0.2, 0.2, 0.2, 0.6, 0.6]))
    theirs = measured(together, np.array([0.2, 0.6]))
    assert "ndcg_at_10" not in ours  # one list is too few
    for name in ("auc", "log_loss"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


def test_a_gain_is_positive_where_ours_is_better() -> None:
    better = {"auc": np.array([0.8, 0.8]), "log_loss": np.array([0.1, 0.1])}
    worse = {"auc": np.array([0.7, 0.7]), "log_loss": np.array([0.3, 0.3])}
    assert [round(one["value"], 3) for one in gains(better, worse).values()] == [0.1, 0.2]


def test_a_process_is_watched(tmp_path) -> None:
    run = watched(
        [
            "-c",
            "import time; memory = bytearray(200 << 20); print('made'); time.sleep(1.5); raise SystemExit(3)",
        ],
        log=tmp_path / "log",
        environment={},
    )
    assert (run.code, run.last_lines()) == (3, "made")
    assert 200 <= run.peak_mib < 400


def test_the_page_tells_what_was_skipped_what_failed_and_where_we_are_behind() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.4).astype(float)
    good, bad = 0.2 + 0.5 * label + 0.1 * rng.random(2000), rng.random(2000)
    scored = {
        "label": label,
        "weight": np.ones(2000),
        "group": np.arange(2000) // 5,
        "unit": np.arange(2000) // 5,
        "num_known": np.array(8000),
        f"{OURS}|7": bad,
        "f|7": 0 * bad,
        "g|7": bad,
        f"{plain.LIGHTGBM}|7": good,
    }
    step = {
        "metrics": {"auc": 0.5, "log_loss": 0.7, "ndcg_at_10": None},
        "gain": {"metric": "auc", "difference": 0.1, "interval": [0.0, 0.2]},
    }
    measured_shop = {
        "about": "A shop.",
        "exit_code": 1,
        "seconds": 10.0,
        "step_seconds": {"model_bundle": 5.0},
        "peak_mib": 100,
        "gate": {"approved": False, "refusals": ["lightgbm: behind"]},
        "quarantined": {"items": 0},
        "fit_seconds": [],
        "evaluations": [
            {
                "metrics": {},
                "ladder": [{"step": "zero_shot", **step}],
                "proposal": "tabular",
                "proposal_reason": "x",
            }
        ],
        **compared(scored),
    }
    shops = {
        "one": measured_shop,
        "two": {"about": "Two.", "skipped": "no data"},
        "three": {"about": "Three.", "failed": "exit code 1"},
    }
    here = {"date": "2026-11-25", "processor": "p", "cores": 2, "threads": 1, "memory_gib": 1, "system": "s"}
    facts = {"command": "make bench-shops", "seconds": 1, "quick": True, "seeds": [7], "shops": shops}
    text = markdown(
        "shops", {**facts, "machine": {**here, "accelerator": None, "packages": {}}, **summary(shops)}
    )
    assert "Behind the best plain method by the interval: one, AUC: LightGBM, raw columns (" in text
    assert "f is silent (its deviation below 5 % of g's): one." in text
    assert "two: skipped, no data." in text
    assert "three: **the job failed**. exit code 1" in text
    assert "The gate: refused, lightgbm: behind." in text
    assert (
        "| scorer | AUC | ours minus it | log loss | ours minus it | NDCG@10 | ours minus it |\n|---|" in text
    )
    assert (
        "| the language model as it comes | 0.5000 | 0.7000 | not measured | AUC +0.1000 (+0.0000 to +0.2000) |"
        in text
    )
