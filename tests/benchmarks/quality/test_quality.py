"""The parts of the quality benchmark, on synthetic examples: what they compute is what they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expectations.storage.atomic import write_json
from tests.benchmarks.harness import Store, machine
from tests.benchmarks.quality.ablation import without
from tests.benchmarks.quality.baselines import Ease, calibrated, previous_baskets
from tests.benchmarks.quality.bench import QUICK, Bench
from tests.benchmarks.quality.boosted_trees import (
    WITHOUT,
    bought_later,
    features,
    refitted_trees,
    tuned_trees,
)
from tests.benchmarks.quality.metrics import QueryGroups
from tests.benchmarks.quality.page import TITLES, page
from tests.benchmarks.quality.results import results
from tests.training.synthetic import SUBJECTS, make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, VALIDATION
from training.evaluation.metrics import auc

NUMERIC = (
    "user_events",
    "item_popularity",
    "user_item_topic_sessions",
    "user_item_topic_amount",
    "context_hour",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic examples with the columns that the past-baskets heuristic reads."""
    rows = make_rows(np.random.default_rng(0), 24, 12)
    visits = rows.pop("cross_visits").fillna(0)
    rows.insert(rows.columns.get_loc("item_popularity") + 1, "user_item_topic_sessions", visits)
    rows["user_item_topic_amount"] = visits * 2
    return write_examples(tmp_path_factory.mktemp("examples"), rows=rows, numeric=NUMERIC)


@pytest.fixture(scope="module")
def data(folder: Path) -> Examples:
    return read_examples(folder)


@pytest.fixture(scope="module")
def covers() -> pd.DataFrame:
    items = range(2 * len(SUBJECTS))
    return pd.DataFrame(
        {"item_id": [f"i{n}" for n in items], "topic": [SUBJECTS[n % len(SUBJECTS)] for n in items]}
    )


@pytest.fixture(scope="module")
def later(data: Examples) -> pd.DataFrame:
    """Purchases after the exposure: of every positive's candidate, and of no other."""
    positive = data.rows.loc[data.labels == 1, ["user_id", "item_id", "event_timestamp"]]
    return positive.assign(visits=1, items=2, amount=3.0)


def test_purchases_of_a_candidates_products_while_it_is_valid(tmp_path: Path) -> None:
    start, end = pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-08")
    timestamps = [start - pd.Timedelta("1s"), start, start, end - pd.Timedelta("1s"), end]
    tables = {
        "exposures": {"user_id": ["u", "v"], "item_id": ["c", "c"], "event_timestamp": [start, start]},
        "items": {"item_id": ["c", "p", "q"], "valid_until": [end, None, None]},
        "relations": {"source_id": ["c", "c"], "relation": ["covers"] * 2, "target_id": ["p", "q"]},
        "events": {
            "user_id": ["u"] * 5,
            "item_id": ["p", "p", "q", "p", "p"],
            "session_id": ["a", "b", "b", "c", "d"],
            "event_type": ["purchase"] * 5,
            "event_timestamp": timestamps,
            "amount": [1.0, 2.0, 4.0, 8.0, 16.0],
        },
    }
    for name, columns in tables.items():
        (tmp_path / name / "1").mkdir(parents=True)
        pd.DataFrame(columns).to_parquet(tmp_path / name / "1" / "part.parquet")
        write_json(tmp_path / name / "current.json", {"version": "1"})
    found = bought_later(tmp_path)
    assert found.to_dict("records") == [
        {"user_id": "u", "item_id": "c", "event_timestamp": start, "visits": 2, "items": 2, "amount": 14.0}
    ]


def test_baselines_rank_better_than_chance(data: Examples, covers: pd.DataFrame) -> None:
    pytest.importorskip("lenskit")
    label = data.labels[data.part == TEST]
    for score in (previous_baskets(data), Ease(data, covers).scores(tell=lambda _: None)):
        scored = calibrated(data, score, seed=0)
        assert (auc(label, scored["test"]) or 0) > 0.6
        assert scored["test"].mean() == pytest.approx(data.labels[data.part != TEST].mean(), rel=0.2)
        assert len(scored["validation"]) == (data.part == VALIDATION).sum()


def test_ease_knows_nothing_of_later_histories(data: Examples, covers: pd.DataFrame) -> None:
    pytest.importorskip("lenskit")
    ease = Ease(data, covers)
    early = ease.as_of <= np.sort(np.unique(ease.as_of))[0]
    before = ease._fitted(ease.as_of.min(), 30.0)
    ease.bought.data[~early[np.repeat(np.arange(len(early)), np.diff(ease.bought.indptr))]] = 7.0
    assert np.array_equal(before, ease._fitted(ease.as_of.min(), 30.0))


def test_trees_are_tuned_on_the_validation_part_and_the_search_goes_on(
    data: Examples, tmp_path: Path
) -> None:
    table = features(data)
    tuned_trees(data, table, trials=1, store=tmp_path / "trees.db", seed=0)
    found = tuned_trees(data, table, trials=2, store=tmp_path / "trees.db", seed=0)
    assert len(found["trials"]) == 2
    assert found["trials"][0]["num_leaves"] == 15
    left = table.without(WITHOUT[found["without"]])
    scored = refitted_trees(data, left, found["settings"], num_trees=found["num_trees"], seed=0)
    assert (auc(data.labels[data.part == TEST], scored) or 0) > 0.6


def test_the_chance_of_any_positive_in_a_query_group() -> None:
    groups = QueryGroups.of(
        np.array([0, 1, 0]), np.array([0.5, 0.5, 0.1]), np.array([3, 3, 8]), np.array([0, 0, 1])
    )
    assert groups.any == pytest.approx([0.75, 0.1])
    assert groups.greatest == pytest.approx([0.5, 0.1])
    assert list(groups.label) == [1, 0]


def test_taking_features_away_leaves_the_rows(folder: Path, tmp_path: Path) -> None:
    left = read_examples(without(folder, tmp_path / "left", ("user_item_",)))
    assert list(left.schema.numeric) == ["user_events", "item_popularity", "context_hour"]
    assert len(left.rows) == len(read_examples(folder).rows)


@pytest.mark.slow
def test_a_whole_run_makes_a_page_and_goes_on_where_it_was_killed(
    folder: Path, covers: pd.DataFrame, later: pd.DataFrame, recipe: Recipe, tmp_path: Path
) -> None:
    pytest.importorskip("lenskit")
    said: list[str] = []
    effort = replace(QUICK, seeds=(1, 2))
    bench = Bench(folder, covers, later, recipe, effort, Store(tmp_path, said.append), jobs=2)
    found = results(bench, bench.run(), bench.textbook())
    done = len(said)
    again = Bench(folder, covers, later, recipe, effort, Store(tmp_path, said.append))
    # As text: what so few query groups cannot measure is NaN, which equals nothing.
    assert json.dumps(results(again, again.run(), again.textbook())) == json.dumps(found)
    assert len(said) == done
    assert found["metrics"]["ours"]["auc"]["mean"] > 0.7
    assert len(found["metrics"]["trees"]["auc"]["by_seed"]) == 2
    assert found["paired"]["tabular"]["auc"]["difference"] == pytest.approx(
        found["metrics"]["ours"]["auc"]["mean"] - found["metrics"]["tabular"]["auc"]["mean"]
    )
    assert found["metrics"]["trees_future"]["auc"]["mean"] > found["metrics"]["trees"]["auc"]["mean"]
    assert "fitted" in found["campaign"]["ours"]
    assert found["campaign"]["campaign_trees"]["direct"]["auc"]["mean"] > 0.5
    facts = {"machine": machine(), "command": "make", "seconds": 1, "quick": True, "jobs": 2, **found}
    written = page(facts)
    assert all(title in written for title in TITLES.values())
    goals = written.partition("## Goals")[2].partition("##")[0]
    assert goals.count("reached") + goals.count(" short |") == 9
