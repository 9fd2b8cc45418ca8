"""The benchmarks' own parts, on synthetic examples: what they compute is what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.synthetic import SUBJECTS, make_rows, write_examples
from training.config.recipe import Recipe
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.evaluation.metrics import auc

NUMERIC = (
    "user_events",
    "item_popularity",
    "user_item_topic_sessions",
    "user_item_topic_amount",
    "context_hour",
)


@pytest.fixture(scope="module")
def user_item(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic examples with the columns that the past-baskets heuristic reads."""
    rows = make_rows(np.random.default_rng(0), 24, 12)
    visits = rows.pop("cross_visits").fillna(0)
    rows.insert(rows.columns.get_loc("item_popularity") + 1, "user_item_topic_sessions", visits)
    rows["user_item_topic_amount"] = visits * 2
    return write_examples(tmp_path_factory.mktemp("user_item"), rows=rows, numeric=NUMERIC)


@pytest.fixture(scope="module")
def data(user_item: Path) -> Examples:
    return read_examples(user_item)


@pytest.fixture(scope="module")
def covers() -> pd.DataFrame:
    items = range(2 * len(SUBJECTS))
    return pd.DataFrame(
        {"item_id": [f"i{n}" for n in items], "topic": [SUBJECTS[n % len(SUBJECTS)] for n in items]}
    )


@pytest.fixture(scope="module")
def later(data: Examples) -> pd.DataFrame:
    """Purchases after the exposure: of every answered candidate, and of no other."""
    answered = data.rows.loc[data.labels == 1, ["user_id", "item_id", "event_timestamp"]]
    return answered.assign(visits=1, items=2, amount=3.0)


def test_purchases_of_a_candidates_products_while_it_is_valid(tmp_path: Path) -> None:
    from expectations.storage.atomic import write_json
    from tests.benchmarks.quality_ceilings import bought_later

    start, end = pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-08")
    moments = [start - pd.Timedelta("1s"), start, start, end - pd.Timedelta("1s"), end]
    tables = {
        "exposures": {"user_id": ["u", "v"], "item_id": ["c", "c"], "event_timestamp": [start, start]},
        "items": {"item_id": ["c", "p", "q"], "valid_until": [end, None, None]},
        "relations": {"source_id": ["c", "c"], "relation": ["covers"] * 2, "target_id": ["p", "q"]},
        "events": {
            "user_id": ["u"] * 5,
            "item_id": ["p", "p", "q", "p", "p"],
            "session_id": ["a", "b", "b", "c", "d"],
            "event_type": ["purchase"] * 5,
            "event_timestamp": moments,
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


def test_rivals_rank_better_than_chance(data: Examples, covers: pd.DataFrame) -> None:
    pytest.importorskip("lenskit")
    from tests.benchmarks.quality_rivals import Ease, calibrated, past_baskets

    label = data.labels[data.part == TEST]
    for score in (past_baskets(data), Ease(data, covers).scores(tell=lambda _: None)):
        scored = calibrated(data, score, seed=0)
        assert (auc(label, scored.test) or 0) > 0.6
        assert scored.test.mean() == pytest.approx(data.labels[data.part != TEST].mean(), rel=0.2)
        assert scored.validation is not None
        assert len(scored.validation) == (data.part == VALIDATION).sum()


def test_ease_knows_nothing_of_later_histories(data: Examples, covers: pd.DataFrame) -> None:
    pytest.importorskip("lenskit")
    from tests.benchmarks.quality_rivals import Ease

    ease = Ease(data, covers)
    early = ease.moment <= np.sort(np.unique(ease.moment))[0]
    before = ease._fitted(ease.moment.min(), 30.0)
    ease.bought.data[~early[np.repeat(np.arange(len(early)), np.diff(ease.bought.indptr))]] = 7.0
    assert np.array_equal(before, ease._fitted(ease.moment.min(), 30.0))


def test_trees_are_tuned_on_the_validation_part_and_the_search_goes_on(
    data: Examples, tmp_path: Path
) -> None:
    from tests.benchmarks.quality_trees import WITHOUT, features, refitted_trees, tuned_trees

    table = features(data)
    tuned_trees(data, table, trials=1, store=tmp_path / "trees.db", seed=0)
    found = tuned_trees(data, table, trials=2, store=tmp_path / "trees.db", seed=0)
    assert len(found["trials"]) == 2
    assert found["trials"][0]["num_leaves"] == 15
    kept = table.without(WITHOUT[found["without"]])
    scored = refitted_trees(data, kept, found["settings"], num_trees=found["num_trees"], seed=0)
    assert (auc(data.labels[data.part == TEST], scored) or 0) > 0.6


def test_the_chance_of_any_answer_in_a_list() -> None:
    from tests.benchmarks.quality_figures import Lists

    lists = Lists.of(np.array([0, 1, 0]), np.array([0.5, 0.5, 0.1]), np.array([3, 3, 8]), np.array([0, 0, 1]))
    assert lists.any == pytest.approx([0.75, 0.1])
    assert lists.greatest == pytest.approx([0.5, 0.1])
    assert list(lists.label) == [1, 0]


def test_taking_features_away_leaves_the_rows(user_item: Path, tmp_path: Path) -> None:
    from tests.benchmarks.quality_ours import without

    left = read_examples(without(user_item, tmp_path / "left", ("user_item_",)))
    assert list(left.schema.numeric) == ["user_events", "item_popularity", "context_hour"]
    assert len(left.rows) == len(read_examples(user_item).rows)


def test_the_textbook_learns_from_written_rows(data: Examples, encoder: Path) -> None:
    from tests.benchmarks.training_textbook import Drawn, Textbook, WrittenRows, as_if_all

    drawn = Drawn.of(data.labels, np.flatnonzero(data.part == TRAIN), others=40, seed=0)
    assert data.labels[drawn.rows].sum() == data.labels[data.part == TRAIN].sum()
    every = as_if_all(data.labels, drawn)
    others = (data.labels[data.part == TRAIN] == 0).sum()
    assert (data.labels[drawn.rows][every] == 0).sum() == pytest.approx(others, abs=20)
    textbook = Textbook(str(encoder), seed=0)
    bought, offered = WrittenRows(data, drawn.rows, textbook.tokenizer).words(int(drawn.rows[1]))
    assert data.texts[data.rows["text_id"].iloc[drawn.rows[1]]] in offered
    assert "bought" in bought
    lesson = textbook.fit(data, drawn.rows, share=drawn.share, seconds=60)
    assert lesson.rows == len(drawn.rows)
    assert not lesson.stopped
    probability = textbook.probabilities(data, drawn.rows)
    assert probability.shape == drawn.rows.shape
    assert ((probability > 0) & (probability < 1)).all()


@pytest.mark.slow
def test_a_whole_run_makes_a_page_and_goes_on_where_it_was_killed(
    user_item: Path, covers: pd.DataFrame, later: pd.DataFrame, recipe: Recipe, tmp_path: Path
) -> None:
    pytest.importorskip("lenskit")
    from tests.benchmarks.after_demo import Store
    from tests.benchmarks.machine import machine
    from tests.benchmarks.quality import QUICK
    from tests.benchmarks.quality_bench import Bench
    from tests.benchmarks.quality_facts import TITLES
    from tests.benchmarks.quality_facts import facts as facts_of
    from tests.benchmarks.quality_goals import goals
    from tests.benchmarks.quality_page import page

    said: list[str] = []
    effort = replace(QUICK, seeds=(1, 2))
    bench = Bench(user_item, covers, later, recipe, effort, Store(tmp_path, said.append), jobs=2)
    found = facts_of(bench, bench.run(), bench.textbook())
    done = len(said)
    again = Bench(user_item, covers, later, recipe, effort, Store(tmp_path, said.append))
    assert facts_of(again, again.run(), again.textbook()) == found
    assert len(said) == done
    assert found["figures"]["ours"]["auc"]["mean"] > 0.7
    assert len(found["figures"]["trees"]["auc"]["by_seed"]) == 2
    assert found["paired"]["past"]["auc"]["difference"] == pytest.approx(
        found["figures"]["ours"]["auc"]["mean"] - found["figures"]["past"]["auc"]["mean"]
    )
    assert found["figures"]["trees_future"]["auc"]["mean"] > found["figures"]["trees"]["auc"]["mean"]
    assert "fitted" in found["campaign"]["ours"]
    assert found["campaign"]["campaign_trees"]["direct"]["auc"]["mean"] > 0.5
    facts = {"machine": machine(), "command": "make", "seconds": 1, "quick": True, "jobs": 2, **found}
    written = page(facts)
    assert all(title in written for title in TITLES.values())
    assert len(goals(facts)) == 9


@pytest.mark.slow
def test_the_speed_of_ours_beside_the_textbook(examples: Path, recipe: Recipe, tmp_path: Path) -> None:
    from tests.benchmarks.machine import machine
    from tests.benchmarks.training import QUICK, Bench
    from tests.benchmarks.training_page import page

    bench = Bench(examples, recipe, QUICK, tmp_path / "work", lambda _: None)
    found = bench.run()
    assert found["ours"]["every row"]["rows"] == len(bench.train)
    assert found["ours"]["recipe"]["rows"] < len(bench.train)
    assert found["ours"]["same rows"]["rows"] == found["textbook"]["the recipe's layers"]["rows"]
    assert found["ratio"] == pytest.approx(
        found["ours"]["every row"]["rows_per_second"]
        / found["textbook"]["the recipe's layers"]["rows_per_second"]
    )
    patient = found["textbook"]["with time"]
    assert patient["rows"] == QUICK.patient_epochs * patient["seen"]
    assert found["floor"]["tokens"] <= found["floor"]["padded"]
    facts = {"machine": machine(), "command": "make", "seconds": 1, "quick": True, **found}
    assert f"{found['auc_ours']:.4f}" in page(facts)
