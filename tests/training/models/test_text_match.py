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
from training.data.interaction_history import POLARITY, Histories, History
from training.data.transforms import fit_transforms
from training.models.match_inputs import Meeting
from training.models.text_match import WordsAttention


@pytest.fixture(name="words")
def _words() -> WordsAttention:
    rows = synthetic.make_rows(np.random.default_rng(0), 4, 2)
    transforms = fit_transforms(rows, numeric=["context_hour"], categorical=["context_channel"], bins=4)
    torch.manual_seed(0)
    return WordsAttention(
        transforms,
        text_width=8,
        channels=3,
        channel_width=4,
        width=8,
        dropout=0.0,
        num_topics=5,
        references=(2, 3),
    )


def _meeting(*polarities: float) -> Meeting:
    """One shopper with an entry for each polarity, all of the first candidate's topic; two candidates."""
    topics = torch.eye(8)
    features = torch.tensor([[[1.0, 0.0, 3.0, polarity] for polarity in polarities]])
    return Meeting(
        history=torch.zeros(1, len(polarities), dtype=torch.long),
        features=features,
        topics=topics,
        candidates=topics[:2],
        queries=torch.zeros(2, 8),
        query_likeness=torch.zeros(2),
        person=torch.zeros(2, dtype=torch.long),
        pair=torch.arange(2),
    )


def test_liked_pulls_up_disliked_down_and_most_where_it_is_near(words: WordsAttention) -> None:
    with torch.no_grad():
        words.opinion[:-1] = 1.0
        told = {
            name: words.meet(_meeting(*said))[0]
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


def test_disliked_entries_get_no_attention_and_turn_the_taste(words: WordsAttention) -> None:
    with torch.no_grad():
        torch.nn.init.normal_(words.out.weight)
        _, attention = words.meet(_meeting(1.0, -1.0, 0.0), with_attention=True)
        liked, disliked, acted = (words.meet(_meeting(p))[0] for p in (1.0, -1.0, 0.0))
    assert attention is not None and (attention[:, 1] == 0).all() and (attention[0, [0, 2]] > 0).all()
    assert not torch.allclose(liked, disliked)
    torch.testing.assert_close(liked, acted)  # the opinion's own weights are still 0


def test_opinions_learn(words: WordsAttention) -> None:
    meeting = _meeting(1.0, -1.0, -1.0)
    words.meet(meeting)[0].sum().backward()
    assert words.opinion.grad is not None and (words.opinion.grad != 0).all()
    words.zero_grad()
    silent = replace(meeting, features=meeting.features.index_fill(2, torch.tensor([POLARITY]), 0.0))
    words.meet(silent)[0].sum().backward()
    assert (words.opinion.grad == 0).all()


def test_polarities_are_read_beside_their_entries(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text_ids": [[4, 2], [], [1]],
            "events": [[1.0, 2.0], [], [3.0]],
            "amounts": [[0.0, 0.0], [], [0.0]],
            "days_ago": [[1.0, 5.0], [], [2.0]],
            "polarities": [[0.5, -1.0], [], [0.0]],
        }
    )
    pq.write_table(table, tmp_path / "histories.parquet")
    histories = Histories(tmp_path / "histories.parquet", num_texts=5)
    assert histories.features[:, :, POLARITY].tolist() == [[0.5, -1.0], [0.0, 0.0], [0.0, 0.0]]
    assert histories.turned_to(np.array([0, 2])).tolist() == [[-1, -1], [1, -1]]


def test_a_served_history_may_leave_polarities_out_but_not_some_of_them() -> None:
    entry = {"texts": ["a", "b"], "events": [1.0, 1.0], "amounts": [0.0, 0.0], "days_ago": [1.0, 2.0]}
    assert History(**entry).features[:, POLARITY].tolist() == [0.0, 0.0]
    assert History(**entry, polarities=[1.0, -0.5]).features[:, POLARITY].tolist() == [1.0, -0.5]
    with pytest.raises(RequestError, match="1 polarities"):
        History(**entry, polarities=[1.0])
