"""What a stage's logits are judged by.

Shapes: N rows, K members, S lists.
"""

import math

import numpy as np
import torch
from torch import Tensor


def binary_loss(logits_NK: Tensor, labels_N: np.ndarray, share: float) -> Tensor:
    """Mean binary cross-entropy of every member.

    Args:
        logits_NK: honest logits.
        labels_N: 0 or 1.
        share: share of the rows without an answer that was drawn; what is drawn has odds 1 / share too high.
    """
    labels = torch.from_numpy(labels_N).to(logits_NK.device, torch.float32)[:, None].expand_as(logits_NK)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits_NK - math.log(share), labels)


def listwise_loss(logits_NK: Tensor, labels_N: np.ndarray, list_N: np.ndarray, num_lists: int) -> Tensor:
    """Mean cross-entropy of the answered rows under the softmax of their list (Bruch et al. 2019, ICTIR).

    Args:
        logits_NK: any row's logits; a constant of its list has no say.
        labels_N: 0 or 1, at least one 1.
        list_N: the list of each row, 0 to S - 1.
        num_lists: S.
    """
    lists = torch.from_numpy(list_N).to(logits_NK.device)
    labels_N1 = torch.from_numpy(labels_N).to(logits_NK.device, torch.float32)[:, None]
    none_SK = logits_NK.new_zeros(num_lists, logits_NK.shape[1])
    places_NK = lists[:, None].expand_as(logits_NK)
    most_SK = none_SK.scatter_reduce(0, places_NK, logits_NK.detach(), "amax", include_self=False)
    whole_SK = none_SK.index_add(0, lists, (logits_NK - most_SK[lists]).exp()).log() + most_SK
    return ((whole_SK[lists] - logits_NK) * labels_N1).sum() / labels_N1.sum() / logits_NK.shape[1]
