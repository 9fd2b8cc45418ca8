"""Sentiment in a history: positive feedback pulls up, negative pulls down, none changes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from expectations.errors import RequestError
from tests.training import synthetic
from training.config.recipe import TextModelSettings
from training.data.interaction_history import SENTIMENT, InteractionHistories, InteractionHistory
from training.data.transforms import fit_transforms
from training.models.text_match import MatchInputs, TextMatch


@pytest.fixture(name="text_model")
def _text_model() -> TextMatch:
    rows = synthetic.make_rows(np.random.default_rng(0), 4, 2)
    transforms = fit_transforms(rows, numeric=["context_hour"], categorical=["context_channel"], bins=4)
    torch.manual_seed(0)
    settings = TextModelSettings(num_kernels=3, projection_size=4, hidden_size=8, dropout=0.0)
    return TextMatch(transforms, settings, text_width=8, num_topics=5, reference_shape=(2, 3))


def _inputs(*sentiments: float) -> MatchInputs:
    """One user with an entry for each sentiment, all of the first candidate's topic; two candidates."""
    topics = torch.eye(8)
    features = torch.tensor([[[1.0, 0.0, 3.0, sentiment] for sentiment in sentiments]])
    return MatchInputs(
        history=torch.zeros(1, len(sentiments), dtype=torch.long),
        features=features,
        topics=topics,
        candidates=topics[:2],
        queries=torch.zeros(2, 8),
        query_similarity=torch.zeros(2),
        user=torch.zeros(2, dtype=torch.long),
        candidate_query=torch.arange(2),
    )


def test_positive_pulls_up_negative_down_and_most_where_it_is_near(text_model: TextMatch) -> None:
    with torch.no_grad():
        text_model.sentiment_out[:-1] = 1.0
        given = {"positive": (1.0,), "negative": (-1.0,), "both": (1.0, -1.0), "none": (0.0,)}
        logits = {name: text_model.logits(_inputs(*sentiments))[0] for name, sentiments in given.items()}
    assert logits["positive"][0] > logits["positive"][1] > 0 > logits["negative"][1] > logits["negative"][0]
    torch.testing.assert_close(logits["both"], torch.zeros(2))
    torch.testing.assert_close(logits["none"], torch.zeros(2))


def test_negative_entries_get_no_attention_and_turn_the_profile(text_model: TextMatch) -> None:
    with torch.no_grad():
        torch.nn.init.normal_(text_model.out.weight)
        _, attention = text_model.logits(_inputs(1.0, -1.0, 0.0), with_attention=True)
        positive, negative, interaction = (text_model.logits(_inputs(p))[0] for p in (1.0, -1.0, 0.0))
    assert attention is not None and (attention[:, 1] == 0).all() and (attention[0, [0, 2]] > 0).all()
    assert not torch.allclose(positive, negative)
    torch.testing.assert_close(positive, interaction)  # the sentiment's own weights are still 0


def test_sentiment_weights_learn(text_model: TextMatch) -> None:
    inputs = _inputs(1.0, -1.0, -1.0)
    text_model.logits(inputs)[0].sum().backward()
    assert text_model.sentiment_out.grad is not None and (text_model.sentiment_out.grad != 0).all()
    text_model.zero_grad()
    without = replace(inputs, features=inputs.features.index_fill(2, torch.tensor([SENTIMENT]), 0.0))
    text_model.logits(without)[0].sum().backward()
    assert (text_model.sentiment_out.grad == 0).all()


def test_sentiments_are_read_beside_their_entries(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text_ids": [[4, 2], [], [1]],
            "events": [[1.0, 2.0], [], [3.0]],
            "amounts": [[0.0, 0.0], [], [0.0]],
            "days_ago": [[1.0, 5.0], [], [2.0]],
            "sentiments": [[0.5, -1.0], [], [0.0]],
        }
    )
    pq.write_table(table, tmp_path / "interaction_histories.parquet")
    histories = InteractionHistories(tmp_path / "interaction_histories.parquet", num_texts=5)
    assert histories.features[:, :, SENTIMENT].tolist() == [[0.5, -1.0], [0.0, 0.0], [0.0, 0.0]]
    assert histories.interactions(np.array([0, 2])).tolist() == [[-1, -1], [1, -1]]


def test_a_served_history_may_leave_sentiments_out_but_not_some_of_them() -> None:
    entry = {"texts": ["a", "b"], "events": [1.0, 1.0], "amounts": [0.0, 0.0], "days_ago": [1.0, 2.0]}
    assert InteractionHistory(**entry).features[:, SENTIMENT].tolist() == [0.0, 0.0]
    assert InteractionHistory(**entry, sentiments=[1.0, -0.5]).features[:, SENTIMENT].tolist() == [1.0, -0.5]
    with pytest.raises(RequestError, match="1 sentiments"):
        InteractionHistory(**entry, sentiments=[1.0])
