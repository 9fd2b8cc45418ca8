"""Pretraining on next interactions: what is left out, what is learned, and examples without any."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from expectations.contracts.examples import NEXT_INTERACTION_SCHEMA, NEXT_INTERACTIONS
from expectations.errors import DataError
from tests.training.fits import losses_of, run
from tests.training.synthetic import write_examples
from training.config.recipe import Recipe
from training.data.collate import Collator
from training.data.dataset import read_examples
from training.data.interaction_history import NextInteractions
from training.data.split import VALIDATION
from training.inference.predictor import Predictor
from training.pipeline.context import FitContext
from training.pipeline.fit import FitResult
from training.pipeline.pretraining import NextInteractionObjective, next_interaction_phase


def days(*numbers: int) -> np.ndarray:
    return np.datetime64("2020-01-01T00:00:00", "us") + np.array(numbers, dtype="timedelta64[D]")


def test_a_window_that_is_not_over_is_left_out() -> None:
    next_interactions = NextInteractions(
        history_id=np.arange(4), event_timestamp=days(0, 1, 2, 3), text_ids=pa.array([[5, 6], [], [7], [8]])
    )
    end = np.datetime64("2020-01-01", "us") + np.timedelta64(29, "D")
    # Day 1 is over exactly when the part begins: its last day lies before.
    assert next_interactions.ended_by(end).tolist() == [0, 1]
    text_ids, of = next_interactions.texts_of(np.array([3, 0, 1]))
    assert text_ids.tolist() == [8, 5, 6] and of.tolist() == [0, 1, 1]


@pytest.fixture(name="context", scope="module")
def _context(examples: Path, recipe: Recipe) -> FitContext:
    return FitContext(read_examples(examples), recipe)


def test_no_phase_learns_from_what_it_is_measured_on(context: FitContext) -> None:
    next_interactions, rows = context.data.next_interactions, context.data.rows
    assert next_interactions is not None
    begins = rows["event_timestamp"].to_numpy()[context.data.part == VALIDATION].min()
    phase = next_interaction_phase(context, "next_interaction_pretraining")
    assert phase is not None
    drawn = np.concatenate(phase.batches(np.random.default_rng(0)))
    ends = next_interactions.event_timestamp[drawn] + np.timedelta64(28, "D")
    assert ends.max() <= begins
    known = context.known_next_interactions()
    assert len(known) == 2 * 24
    other = np.setdiff1d(np.arange(len(next_interactions.event_timestamp)), known)
    late, early = (next_interactions.texts_of(windows)[0] for windows in (other, known))
    assert not set(late) - set(early) & set(context.topic_ids)


def test_f_learns_who_interacts_with_what(context: FitContext) -> None:
    phase = next_interaction_phase(context, "next_interaction_pretraining")
    torch.manual_seed(0)
    losses = losses_of(phase, epochs=10)
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_a_candidate_is_one_to_four_topics(context: FitContext) -> None:
    next_interactions = context.data.next_interactions
    assert next_interactions is not None
    chosen = context.known_next_interactions()
    objective = NextInteractionObjective(context, next_interactions, chosen)
    weights = objective._topic_weights(context.model.text_model.topics, np.random.default_rng(0))
    assert weights.shape == (objective.num_candidates, len(context.topic_ids))
    assert ((weights > 0).sum(1) >= 1).all() and ((weights > 0).sum(1) <= 4).all()


def test_a_fitted_f_is_centred_by_reference_users(fitted: FitResult) -> None:
    text_model = Predictor.load(fitted.bundle).model.text_model
    assert text_model.centred == 1 and fitted.metrics["num_next_interactions"] == 48
    assert (text_model.reference_history >= 0).any()
    assert text_model.topics.norm(dim=1).sub(1).abs().max() < 1e-5


def test_f_is_personalised_and_popularity_part_and_the_latter_is_the_same_for_everybody(
    fitted: FitResult, examples: Path
) -> None:
    predictor, data = Predictor.load(fitted.bundle), read_examples(examples)
    text_model = predictor.model.text_model
    batch, text_ids = Collator(data, predictor.transforms).batch(np.arange(len(data.rows)))

    def parts(centred: float) -> torch.Tensor:
        text_model.centred.fill_(centred)
        with torch.no_grad():
            found, _ = text_model(batch, predictor.texts.encode([data.texts[place] for place in text_ids]))
        return found

    (whole, nothing, *_), (personalised, popularity, *_) = parts(0.0).T, parts(1.0).T
    torch.testing.assert_close(personalised + popularity, whole)
    assert personalised.std() > 0 and popularity.std() > 0 and not nothing.any()
    for pair in batch.candidate_query.unique():
        assert popularity[batch.candidate_query == pair].std(correction=0) < 1e-6


def test_the_scales_of_the_parts_are_no_worse_than_g_alone(examples: Path, recipe: Recipe) -> None:
    context = FitContext(read_examples(examples), recipe)
    torch.manual_seed(3)
    torch.nn.init.normal_(context.model.text_model.out.weight)
    context.centre_text_model()
    alone = context.metrics()["log_loss"]
    *scales, intercept = context.stack()["all"]
    context.model.set_scales(scales, intercept)
    assert all(scale >= 0 for scale in scales) and context.metrics()["log_loss"] <= alone + 1e-3


def test_without_next_interactions_the_phase_is_skipped_and_said_so(short: Recipe, tmp_path: Path) -> None:
    folder = write_examples(tmp_path / "examples", next_interactions=False)
    result = run(folder, short.updated(pretraining={"next_interaction_epochs": 2}), tmp_path)
    assert [entry["phase"] for entry in result.history] == ["tabular", "finetuning", "finetuning"]
    assert result.metrics["num_next_interactions"] == 0
    assert Predictor.load(result.bundle).model.text_model.centred == 0


def test_next_interactions_of_unknown_texts_are_refused(tmp_path: Path) -> None:
    folder = write_examples(tmp_path / "examples")
    row = {"history_id": [0], "event_timestamp": [days(0)[0].astype(object)], "text_ids": [[999]]}
    pq.write_table(pa.table(row, schema=NEXT_INTERACTION_SCHEMA), folder / NEXT_INTERACTIONS)
    with pytest.raises(DataError, match="text_ids outside"):
        read_examples(folder)
