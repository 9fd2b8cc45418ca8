"""Losses of logits. The listwise one is by hand: torch has no softmax over groups of different sizes.

Shapes: N rows, K ensemble members, G query groups.
"""

import math

import numpy as np
import torch
from torch import Tensor


def binary_loss(
    logits_NK: Tensor, labels_N: np.ndarray, weights_N: np.ndarray, sampling_rate: float
) -> Tensor:
    """Weighted binary cross-entropy of every member, its mean over rows and members.

    Args:
        logits_NK: calibrated logits.
        labels_N: 0 to 1.
        weights_N: how much each row counts, about 1 on average.
        sampling_rate: fraction of the negatives that was drawn; the drawn rows have odds 1 / sampling_rate too high.
    """
    labels, weights = (
        torch.from_numpy(values).to(logits_NK.device, torch.float32)[:, None].expand_as(logits_NK)
        for values in (labels_N, weights_N)
    )
    sampled_NK = logits_NK - math.log(sampling_rate)
    return torch.nn.functional.binary_cross_entropy_with_logits(sampled_NK, labels, weights)


def listwise_loss(
    logits_NK: Tensor,
    labels_N: np.ndarray,
    weights_N: np.ndarray,
    query_group_N: np.ndarray,
    num_query_groups: int,
) -> Tensor:
    """Mean cross-entropy of the positives under the softmax of their query group (Bruch et al. 2019, ICTIR).

    Args:
        logits_NK: any row's logits; a constant of its query group has no effect.
        labels_N: 0 to 1, at least one above 0.
        weights_N: how many impressions each row stands for, in any unit.
        query_group_N: the query group of each row, 0 to G - 1.
        num_query_groups: G.
    """
    query_groups = torch.from_numpy(query_group_N).to(logits_NK.device)
    positive_N1, weights_N1 = (
        torch.from_numpy(values).to(logits_NK.device, torch.float32)[:, None]
        for values in (labels_N * weights_N, weights_N)
    )
    logits_NK = logits_NK + weights_N1.log()
    zeros_GK = logits_NK.new_zeros(num_query_groups, logits_NK.shape[1])
    index_NK = query_groups[:, None].expand_as(logits_NK)
    max_GK = zeros_GK.scatter_reduce(0, index_NK, logits_NK.detach(), "amax", include_self=False)
    log_sum_exp_GK = (
        zeros_GK.index_add(0, query_groups, (logits_NK - max_GK[query_groups]).exp()).log() + max_GK
    )
    return (
        ((log_sum_exp_GK[query_groups] - logits_NK) * positive_N1).sum()
        / positive_N1.sum()
        / logits_NK.shape[1]
    )
