import numpy as np
import pytest
import torch

from training.models.losses import binary_loss, listwise_loss
from training.pipeline.supervised import MIN_QUERY_GROUPS, mixed_query_groups


def test_the_loss_corrects_for_the_sampling_rate():
    logits = torch.tensor([[-3.0], [1.0]])
    labels = np.array([0, 1], np.float32)
    shifted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits - np.log(0.1), torch.from_numpy(labels)[:, None]
    )
    assert binary_loss(logits, labels, np.ones_like(labels), 0.1) == pytest.approx(float(shifted))


def test_the_softmax_of_each_query_group():
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [500.0, 0.0], [499.0, 0.0]])
    found = listwise_loss(
        logits, np.array([0, 1, 1, 0], np.float32), np.ones(4, np.float32), np.array([0, 0, 1, 1]), 2
    )
    first, second = np.log(1 + np.exp(-1)), np.log(2)
    assert float(found) == pytest.approx((first + first + second + second) / 4, rel=1e-5)


def test_a_constant_of_a_query_group_has_no_effect():
    logits, group = torch.randn(6, 2), np.array([0, 0, 0, 1, 1, 1])
    labels, ones = np.array([1, 0, 0, 0, 1, 0], np.float32), np.ones(6, np.float32)
    moved = logits + torch.tensor([3.0, -5.0])[torch.from_numpy(group)][:, None]
    torch.testing.assert_close(
        listwise_loss(logits, labels, ones, group, 2),
        listwise_loss(moved, labels, ones, group, 2),
        rtol=1e-4,
        atol=1e-5,
    )


def test_query_groups_with_labels_of_both_kinds_where_they_are_enough():
    labels = np.array([0, 1, 0, 0, 1, 1, 0], np.float32)
    query_group_id = np.array([7, 7, 3, 3, 5, 5, 7])
    rows, starts = mixed_query_groups(labels, query_group_id)
    assert len(rows) == 0 and starts.tolist() == [0]
    copies = 10 * np.arange(MIN_QUERY_GROUPS)
    rows, starts = mixed_query_groups(
        np.tile(labels, len(copies)), (copies[:, None] + query_group_id).reshape(-1)
    )
    assert rows[:6].tolist() == [0, 1, 6, 7, 8, 13]
    assert starts.tolist() == [*range(0, 3 * len(copies) + 1, 3)]
