"""Polarity in a history: what was liked pulls up, what was disliked pulls down, nothing said changes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from expectations.errors import RequestError
from tests.training import synthetic
from training.data.interaction_history import SENTIMENT, InteractionHistories, InteractionHistory
from training.data.transforms import fit_transforms
from training.models.match_inputs import MatchInputs
from training.models.text_match import TextMatch


@pytest.fixture(name="words")
def _words() -> TextMatch:
    rows = synthetic.make_rows(np.random.default_rng(0), 4, 2)
    transforms = fit_transforms(rows, numeric=["context_hour"], categorical=["context_channel"], bins=4)
    torch.manual_seed(0)
    return TextMatch(
        transforms,
        text_width=8,
        channels=3,
        channel_width=4,
        width=8,
        dropout=0.0,
        num_topics=5,
        references=(2, 3),
    )


def _meeting(*sentiments: float) -> MatchInputs:
    """One shopper with an entry for each polarity, all of the first candidate's topic; two candidates."""
    topics = torch.eye(8)
    features = torch.tensor([[[1.0, 0.0, 3.0, sentiment] for sentiment in sentiments]])
    return MatchInputs(
        history=torch.zeros(1, len(sentiments), dtype=torch.long),
        features=features,
        topics=topics,
        candidates=topics[:2],
        queries=torch.zeros(2, 8),
        query_similarity=torch.zeros(2),
        person=torch.zeros(2, dtype=torch.long),
        pair=torch.arange(2),
    )


def test_liked_pulls_up_disliked_down_and_most_where_it_is_near(words: TextMatch) -> None:
    with torch.no_grad():
        words.opinion[:-1] = 1.0
        told = {
            name: words.logits(_meeting(*said))[0]
            for name, said in {
                "liked": (1.0,),
                "disliked": (-1.0,),
                "both": (1.0, -1.0),
                "nothing": (0.0,),
            }.items()
        }
    assert told["liked"][0] > told["liked"][1] > 0 > told["disliked"][1] > told["disliked"][0]
    torch.testing.assert_close(told["both"], torch.zeros(2))
    torch.testing.assert_close(told["nothing"], torch.zeros(2))


def test_disliked_entries_get_no_attention_and_turn_the_taste(words: TextMatch) -> None:
    with torch.no_grad():
        torch.nn.init.normal_(words.out.weight)
        _, attention = words.logits(_meeting(1.0, -1.0, 0.0), with_attention=True)
        liked, disliked, acted = (words.logits(_meeting(p))[0] for p in (1.0, -1.0, 0.0))
    assert attention is not None and (attention[:, 1] == 0).all() and (attention[0, [0, 2]] > 0).all()
    assert not torch.allclose(liked, disliked)
    torch.testing.assert_close(liked, acted)  # the opinion's own weights are still 0


def test_opinions_learn(words: TextMatch) -> None:
    inputs = _meeting(1.0, -1.0, -1.0)
    words.logits(inputs)[0].sum().backward()
    assert words.opinion.grad is not None and (words.opinion.grad != 0).all()
    words.zero_grad()
    silent = replace(inputs, features=inputs.features.index_fill(2, torch.tensor([SENTIMENT]), 0.0))
    words.logits(silent)[0].sum().backward()
    assert (words.opinion.grad == 0).all()


def test_polarities_are_read_beside_their_entries(tmp_path: Path) -> None:
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


def test_a_served_history_may_leave_polarities_out_but_not_some_of_them() -> None:
    entry = {"texts": ["a", "b"], "events": [1.0, 1.0], "amounts": [0.0, 0.0], "days_ago": [1.0, 2.0]}
    assert InteractionHistory(**entry).features[:, SENTIMENT].tolist() == [0.0, 0.0]
    assert InteractionHistory(**entry, sentiments=[1.0, -0.5]).features[:, SENTIMENT].tolist() == [1.0, -0.5]
    with pytest.raises(RequestError, match="1 polarities"):
        InteractionHistory(**entry, sentiments=[1.0])
