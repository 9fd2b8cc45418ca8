"""Learning from futures: what is left out, what is learned, and examples without any."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from expectations.contracts.examples import NEXT_INTERACTION_SCHEMA, NEXT_INTERACTIONS
from expectations.errors import DataError
from tests.training.synthetic import write_examples
from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.dataset import read_examples
from training.data.next_interactions import NextInteractions
from training.data.split import TEST, VALIDATION
from training.evaluation.validation import SCALES
from training.inference.predictor import Predictor
from training.pipeline.context import FitContext
from training.pipeline.fit import FitResult, fit
from training.pipeline.next_interaction_pretraining import NextInteractionObjective


def days(*numbers: int) -> np.ndarray:
    return np.datetime64("2020-01-01T00:00:00", "us") + np.array(numbers, dtype="timedelta64[D]")


def test_a_future_that_is_not_over_is_left_out() -> None:
    next_interactions = NextInteractions(
        history_id=np.arange(4),
        moment=days(0, 1, 2, 3),
        starts=np.array([0, 2, 2, 3, 4]),
        text_ids=np.array([5, 6, 7, 8]),
    )
    end = np.datetime64("2020-01-01", "us") + np.timedelta64(29, "D")
    # Day 1 is over exactly when the part begins: its last day lies before.
    assert next_interactions.over_by(end).tolist() == [0, 1]
    text_ids, of = next_interactions.texts_of(np.array([3, 0, 1]))
    assert text_ids.tolist() == [8, 5, 6] and of.tolist() == [0, 1, 1]


@pytest.fixture(name="run", scope="module")
def _run(examples: Path, recipe: Recipe) -> FitContext:
    return FitContext(read_examples(examples), recipe)


def test_no_stage_learns_from_what_it_is_measured_on(run: FitContext) -> None:
    next_interactions, rows = run.data.next_interactions, run.data.rows
    assert next_interactions is not None
    for part, num_moments in ((VALIDATION, 2), (TEST, 3)):
        begins = rows["event_timestamp"].to_numpy()[run.data.part == part].min()
        stage = run.next_interaction_phase("next_interaction_pretraining", before=part)
        assert stage is not None
        drawn = np.concatenate(stage.batches(np.random.default_rng(0)))
        ends = next_interactions.moment[drawn] + np.timedelta64(28, "D")
        assert ends.max() <= begins
        assert len(run.next_interactions_before(part)) == num_moments * 24
    late = next_interactions.texts_of(
        np.setdiff1d(np.arange(len(next_interactions.moment)), run.next_interactions_before(VALIDATION))
    )[0]
    early = next_interactions.texts_of(run.next_interactions_before(VALIDATION))[0]
    assert not set(late) - set(early) & set(run.topic_ids)


def test_f_learns_to_tell_who_turns_to_what(run: FitContext) -> None:
    stage = run.next_interaction_phase("next_interaction_pretraining", before=VALIDATION)
    assert stage is not None
    rng, losses = np.random.default_rng(0), []
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([dict(group) for group in stage.groups])
    for _ in range(10):
        for rows in stage.batches(rng):
            loss = stage.loss(rows, rng)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_a_candidate_is_answered_by_who_turns_to_any_of_its_topics(run: FitContext) -> None:
    next_interactions = run.data.next_interactions
    assert next_interactions is not None
    purchases = NextInteractionObjective(
        run.data, next_interactions, run.next_interactions_before(VALIDATION), run.topic_ids, run.recipe
    )
    shares = purchases._draw(run.model.text_model.topics, np.random.default_rng(0))
    assert shares.shape == (purchases.num_candidates, len(run.topic_ids))
    assert ((shares > 0).sum(1) >= 1).all() and ((shares > 0).sum(1) <= 4).all()


def test_a_centred_f_says_nothing_of_the_reference_shoppers_on_average(fitted: FitResult) -> None:
    words = Predictor.load(fitted.bundle).model.text_model
    assert words.centred == 1 and fitted.metrics["num_next_interactions"] == 48
    assert (words.reference_history >= 0).any() and words.topics.norm(dim=1).sub(1).abs().max() < 1e-5


def test_f_is_match_and_appeal_and_appeal_is_the_same_for_everybody(
    fitted: FitResult, examples: Path
) -> None:
    predictor, data = Predictor.load(fitted.bundle), read_examples(examples)
    words = predictor.model.text_model
    batch, text_ids = Collator(data, predictor.transforms).batch(np.arange(len(data.rows)))

    def said(match: float, appeal: float, centred: float = 1.0) -> torch.Tensor:
        words.centred.fill_(centred)
        with torch.no_grad():
            words.personalised_scale.fill_(match)
            words.popularity_scale.fill_(appeal)
            return words(batch, predictor.texts.encode([data.texts[place] for place in text_ids]))[0]

    whole, match, appeal = said(1.0, 0.0, centred=0.0), said(1.0, 0.0), said(0.0, 1.0)
    torch.testing.assert_close(match + appeal, whole)
    assert match.std() > 0 and appeal.std() > 0
    for pair in batch.pair.unique():
        assert appeal[batch.pair == pair].std(correction=0) < 1e-6


def test_the_scales_of_match_and_appeal_are_the_best_by_turns(examples: Path, recipe: Recipe) -> None:
    run = FitContext(read_examples(examples), recipe.updated(early_stopping={"metric": "log_loss"}))
    torch.manual_seed(3)
    torch.nn.init.normal_(run.model.text_model.out.weight)
    run.settle_words()
    found = run.best_scales()

    def loss(match: float, appeal: float) -> float:
        run.scale_words(match, appeal)
        return run.figures()["log_loss"] or 0.0

    least = loss(*found)
    assert all(least <= loss(match, found[1]) + 1e-9 for match in SCALES)
    assert least <= loss(0.0, 0.0)


def test_without_futures_the_stage_is_skipped_and_said_so(recipe: Recipe, tmp_path: Path) -> None:
    folder = write_examples(tmp_path / "examples", next_interactions=False)
    short = recipe.updated(
        early_stopping={"refit": False}, finetuning={"epochs": 1}, tabular_model={"epochs": 1}
    )
    result = fit(
        folder, short, out=tmp_path / "out", work=tmp_path / "work", log_dir=tmp_path / "tb", progress=False
    )
    assert [entry["stage"] for entry in result.history] == ["tabular", "finetuning"]
    assert result.metrics["num_next_interactions"] == 0
    assert Predictor.load(result.bundle).model.text_model.centred == 0


def test_futures_of_unknown_texts_are_refused(tmp_path: Path) -> None:
    folder = write_examples(tmp_path / "examples")
    row = {"history_id": [0], "event_timestamp": [days(0)[0].astype(object)], "text_ids": [[999]]}
    pq.write_table(pa.table(row, schema=NEXT_INTERACTION_SCHEMA), folder / NEXT_INTERACTIONS)
    with pytest.raises(DataError, match="text_ids outside"):
        read_examples(folder)
