"""Boosted trees as tensors: what thresholds on past outcomes say, beside the small networks of g.

LightGBM grows them (Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree"); what it
grew is kept as plain tensors, so a bundle holds no pickle, and serving needs no LightGBM.

Shapes: N rows, D features (numeric, then codes of categories), T trees, M nodes of the largest tree.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 8  # splits between root and leaf, at most
FEATURES_SEEN, ROWS_SEEN = 0.5, 0.7  # shares of the features and of the rows that a tree sees
LEAST_ROWS, SHRINKAGE = 100, 5.0  # rows of a leaf, at least; L2 penalty of a leaf's value


def boosted(
    features_ND: np.ndarray, labels_N: np.ndarray, settings: Mapping[str, Any], *, num_trees: int, seed: int
) -> Any:
    """LightGBM's model of binary answers, the same at every run; None where LightGBM is not installed."""
    try:
        lightgbm: Any = importlib.import_module("lightgbm")
    except ImportError:
        return None
    fixed = {
        "objective": "binary",
        "num_threads": torch.get_num_threads(),
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    data = lightgbm.Dataset(features_ND, label=labels_N)
    return lightgbm.train({**fixed, **settings}, data, num_boost_round=num_trees)


class Trees(nn.Module):
    """A sum of trees; silent until grown.

    Args:
        num_trees: T.
        leaves: most leaves of a tree.
    """

    feature: Tensor
    threshold: Tensor
    unknown_left: Tensor
    below: Tensor
    value: Tensor
    grown: Tensor

    def __init__(self, num_trees: int, leaves: int) -> None:
        super().__init__()
        shape = (num_trees, 2 * leaves - 1)
        self.register_buffer("feature", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("unknown_left", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("below", torch.zeros(*shape, 2, dtype=torch.int32))
        self.register_buffer("value", torch.zeros(shape))
        self.register_buffer("grown", torch.tensor(0.0))

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """Logit of each row, (N,)."""
        features_ND = torch.cat([numbers_NF, codes_NC.to(numbers_NF.dtype)], dim=1)
        first_T = torch.arange(len(self.feature), device=numbers_NF.device) * self.feature.shape[1]
        at_NT = first_T.expand(len(features_ND), -1)
        below = self.below.flatten(0, 1)
        for _ in range(DEPTH):
            value_NT = features_ND.gather(1, self.feature.flatten()[at_NT].long())
            left = value_NT.double() <= self.threshold.flatten()[at_NT]
            left = torch.where(torch.isnan(value_NT), self.unknown_left.flatten()[at_NT], left)
            at_NT = first_T + below[at_NT, (~left).long()]
        return self.value.flatten()[at_NT].sum(1)

    def grow(
        self, features_ND: np.ndarray, labels_N: np.ndarray, *, share: float, rate: float, seed: int
    ) -> bool:
        """Grow the trees; False, and nothing is changed, where LightGBM is not installed.

        Args:
            features_ND: numbers, then codes.
            labels_N: 0 or 1.
            share: share of the rows without an answer that is among these; the logits are corrected for it.
            rate: learning rate.
            seed: of what a tree sees.
        """
        num_trees, nodes = self.feature.shape
        settings = {
            "learning_rate": rate,
            "num_leaves": (nodes + 1) // 2,
            "max_depth": DEPTH,
            "feature_fraction": FEATURES_SEEN,
            "bagging_fraction": ROWS_SEEN,
            "bagging_freq": 1,
            "min_data_in_leaf": LEAST_ROWS,
            "lambda_l2": SHRINKAGE,
        }
        booster = boosted(features_ND, labels_N, settings, num_trees=num_trees, seed=seed)
        if booster is None:
            return False
        found = booster.dump_model()
        self._clear()
        for number, tree in enumerate(found["tree_info"]):
            self._take(number, tree["tree_structure"])
        self.value[0] += float(np.log(share))
        self.grown.fill_(1)
        return True

    def _clear(self) -> None:
        own = torch.arange(self.feature.shape[1], dtype=torch.int32)
        self.below.copy_(own[None, :, None].expand_as(self.below))  # a leaf's children are the leaf itself
        for buffer in (self.feature, self.threshold, self.unknown_left, self.value):
            buffer.zero_()

    def _take(self, number: int, root: dict[str, Any]) -> None:
        """Lay one of LightGBM's trees into row `number`, its nodes in the order in which they are met."""
        waiting, used = [(0, root)], 1
        while waiting:
            place, node = waiting.pop()
            if "split_feature" not in node:
                self.value[number, place] = node["leaf_value"]
                continue
            self.feature[number, place] = node["split_feature"]
            self.threshold[number, place] = node["threshold"]
            self.unknown_left[number, place] = _unknown_goes_left(node)
            for side, child in enumerate((node["left_child"], node["right_child"])):
                self.below[number, place, side] = used
                waiting.append((used, child))
                used += 1


def _unknown_goes_left(node: dict[str, Any]) -> bool:
    """Where NaN goes: LightGBM takes it for 0 at a split that met none when it grew."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return bool(node["threshold"] >= 0)
