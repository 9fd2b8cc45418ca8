"""Boosted trees as tensors: the part of g beside its networks.

LightGBM grows them (Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree"); what it
grew is kept as plain tensors, so a bundle holds no pickle, and serving needs no LightGBM.

Shapes: N rows, D features (numeric, then codes of categories), T trees of all models, S splits of the largest.
"""

import functools
import importlib
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expectations.errors import SettingError
from training.runtime import distributed

MAX_DEPTH = 8  # splits between root and leaf, at most
FEATURE_FRACTION, BAGGING_FRACTION = 0.5, 0.7  # of the features and of the rows that a tree sees
MIN_DATA_IN_LEAF, LAMBDA_L2 = 100, 5.0  # rows of a leaf, at least; L2 penalty of a leaf's value
ROWS_AT_ONCE = 4096  # scored at once: the columns of their trees stay in the processor's cache
LEAVES_AT_ONCE = 512  # rows whose leaves are looked up at once


def train_boosting(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    params: Mapping[str, Any],
    *,
    num_trees: int,
    seed: int,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    patience: int = 0,
) -> Any:
    """LightGBM's model of binary labels, the same at every run.

    Args:
        features_ND: of the rows to learn from.
        labels_N: 0 or 1.
        params: LightGBM's, beside those that are fixed here.
        num_trees: how many to grow, at most.
        seed: of what a tree sees.
        validation: features and labels of other rows; training stops by the average precision there.
        patience: trees that may pass without a better one.

    Returns:
        A booster, or None where LightGBM is not installed.

    Raises:
        SettingError: LightGBM is installed and cannot be loaded.
    """
    lightgbm = import_lightgbm()
    if lightgbm is None:
        return None
    defaults = {
        "objective": "binary",
        "num_threads": torch.get_num_threads(),
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    stop = {}
    if validation is not None:
        features, labels = validation
        defaults["metric"] = "average_precision"
        stop["valid_sets"] = [lightgbm.Dataset(features, label=labels)]
        stop["callbacks"] = [lightgbm.early_stopping(patience, verbose=False)]
    data = lightgbm.Dataset(features_ND, label=labels_N)
    return lightgbm.train({**defaults, **params}, data, num_boost_round=num_trees, **stop)


def import_lightgbm() -> Any:
    """The package, or None where it is not installed.

    Raises:
        SettingError: it is installed and cannot be loaded.
    """
    try:
        return importlib.import_module("lightgbm")
    except ImportError:
        return None
    except OSError as error:  # its own library, or one that it needs
        raise SettingError(
            f"LightGBM is installed and cannot be loaded ({error}); it needs OpenMP (apt-get install libgomp1). "
            "To train without trees: pip uninstall lightgbm, or tree_weight = 0"
        ) from error


class BoostedTrees(nn.Module):
    """A mean of boosted models, each a sum of trees; 0 until fitted.

    A tree is read without following its branches (Lucchese et al. 2015, "QuickScorer: a Fast Algorithm to Rank
    Documents with Additive Ensembles of Regression Trees"): every split that a row fails strikes out the leaves to
    its left, and the first leaf that is left is the row's. So a tree costs a few comparisons of whole columns.

    Args:
        num_models: boosted models, each grown on rows of its own.
        num_trees: of each of them.
        num_leaves: most leaves of a tree, at most 63: one bit each.
    """

    column: Tensor
    threshold: Tensor
    kept: Tensor
    value: Tensor
    fitted: Tensor

    def __init__(self, num_models: int, num_trees: int, num_leaves: int) -> None:
        super().__init__()
        self.num_models, self.num_trees, self.num_leaves = num_models, num_trees, num_leaves
        shape = (num_models * num_trees, num_leaves - 1)
        self.register_buffer("column", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(shape))
        self.register_buffer("kept", torch.full(shape, -1))
        self.register_buffer("value", torch.zeros(num_models * num_trees, num_leaves))
        self.register_buffer("fitted", torch.tensor(0.0))

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """Logit of each row, (N,)."""
        features_ND = _joined(numbers_NF, codes_NC)
        return torch.cat([self._sums(part) for part in features_ND.split(ROWS_AT_ONCE)])

    def ablation(
        self, numbers_NF: Tensor, codes_NC: Tensor, typical_F: Tensor, most_frequent_C: Tensor
    ) -> Tensor:
        """What each feature adds, (N, D): the logit minus that with the feature at its typical value.

        The splits of a tree on other features leave the same leaves as before: each value is compared but once.
        """
        features_ND, typical_1D = (
            _joined(numbers_NF, codes_NC),
            _joined(typical_F[None], most_frequent_C[None]),
        )
        own_SNT, typical_S1T = (
            torch.stack([kept.T for kept in self._kept(rows)]) for rows in (features_ND, typical_1D)
        )
        feature_ST = self.column.T % features_ND.shape[1]
        # For each split the leaves that its tree is left with once that split's feature is changed.
        changed_SS1T = -(feature_ST == feature_ST[:, None]).to(own_SNT.dtype)[:, :, None]
        left_SNT = functools.reduce(
            torch.bitwise_and, (typical_S1T[:, None] | ~changed_SS1T).unbind(0)
        ).repeat(1, len(features_ND), 1)
        for own_NT, changed_S1T in zip(own_SNT, changed_SS1T, strict=True):
            left_SNT &= own_NT | changed_S1T
        whole_NT = functools.reduce(torch.bitwise_and, own_SNT)
        added_SNT = self._leaf_values(whole_NT) - self._leaf_values(left_SNT)
        for split, changed_S1T in enumerate(changed_SS1T):  # once a tree, though it splits on a feature twice
            added_SNT[split].masked_fill_(changed_S1T[:split].any(0), 0)
        added_NX, feature_X = added_SNT.transpose(0, 1).flatten(1), feature_ST.flatten().long()
        added_ND = torch.zeros_like(features_ND)
        return added_ND.scatter_add_(1, feature_X.expand_as(added_NX), added_NX)

    def _sums(self, features_ND: Tensor) -> Tensor:
        left_TN = functools.reduce(operator.iand, self._kept(features_ND))
        parts = left_TN.split(LEAVES_AT_ONCE, dim=1)  # their places are four times as wide
        return torch.cat([self.value.gather(1, _first_leaf(part)).sum(0) for part in parts])

    def _leaf_values(self, left_XNT: Tensor) -> Tensor:
        trees_T = torch.arange(len(self.value), device=self.value.device)
        return self.value.take(_first_leaf(left_XNT) + trees_T * self.num_leaves)

    def _kept(self, features_ND: Tensor) -> Iterator[Tensor]:
        """For each split of the trees the leaves that it leaves to each row, (T, N), a bit for each leaf."""
        known_DN = features_ND.T.contiguous()
        unknown_DN = known_DN.isnan()
        # Each feature twice: what is unknown passes no threshold of the first, and every one of the second.
        columns = torch.cat(
            [known_DN.masked_fill(unknown_DN, torch.inf), known_DN.masked_fill(unknown_DN, -torch.inf)]
        )
        kept_TS = self.kept.to(_bits(self.num_leaves))
        for column_T, threshold_T, kept_T in zip(self.column.T, self.threshold.T, kept_TS.T, strict=True):
            passed_TN = columns[column_T] <= threshold_T[:, None]
            yield kept_T[:, None] | -passed_TN.to(kept_TS.dtype)

    def fit(
        self,
        draw: Callable[[int], tuple[np.ndarray, np.ndarray]],
        *,
        sampling_rate: float,
        learning_rate: float,
        seed: int,
    ) -> bool:
        """Grow the trees, each rank some of the models; False, and nothing is changed, without LightGBM.

        Args:
            draw: model -> the rows that it learns from: features (N, D), numbers, then codes; labels (N,).
            sampling_rate: fraction of the negatives that is among these; the logits are corrected for it.
            learning_rate: learning rate.
            seed: of what a tree sees.
        """
        if import_lightgbm() is None:
            return False
        params = {
            "learning_rate": learning_rate,
            "num_leaves": self.num_leaves,
            "max_depth": MAX_DEPTH,
            "feature_fraction": FEATURE_FRACTION,
            "bagging_fraction": BAGGING_FRACTION,
            "bagging_freq": 1,
            "min_data_in_leaf": MIN_DATA_IN_LEAF,
            "lambda_l2": LAMBDA_L2,
        }
        tables = (self.column, self.threshold, self.kept, self.value)
        for table in tables:
            table.zero_()
        for model in distributed.interleaved_shard(range(self.num_models)):
            features_ND, labels_N = draw(model)
            booster = train_boosting(
                features_ND, labels_N, params, num_trees=self.num_trees, seed=seed + model
            )
            first, num_features = model * self.num_trees, features_ND.shape[1]
            del features_ND, labels_N  # before the next model's are made
            self.kept[first : first + self.num_trees] = -1
            for number, tree in enumerate(booster.dump_model()["tree_info"]):
                self._take(first + number, tree["tree_structure"], num_features)
            self.value[first] += float(np.log(sampling_rate))
        for table in tables:
            distributed.all_reduce_rows(table, torch.arange(len(table), device=table.device))
        self.value /= self.num_models
        self.fitted.fill_(1)
        return True

    def _take(self, number: int, root: dict[str, Any], num_features: int) -> None:
        """Lay one of LightGBM's trees into row `number`."""
        splits, num_leaves = 0, 0

        def lay(node: dict[str, Any]) -> None:
            nonlocal splits, num_leaves
            if "split_feature" not in node:
                self.value[number, num_leaves] = node["leaf_value"]
                num_leaves += 1
                return
            split, first = splits, num_leaves
            splits += 1
            self.column[number, split] = node["split_feature"] + num_features * _unknown_goes_left(node)
            self.threshold[number, split] = _not_above(node["threshold"])
            lay(node["left_child"])
            self.kept[number, split] = ~(2**num_leaves - 2**first)
            lay(node["right_child"])

        lay(root)


def _joined(numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
    return torch.cat([numbers_NF, codes_NC.to(numbers_NF.dtype)], dim=1)


def _first_leaf(left: Tensor) -> Tensor:
    """Place of the lowest bit."""
    return (left & -left).float().log2_().round_().long()


def _bits(num_leaves: int) -> torch.dtype:
    """The smallest integer that has a bit for each leaf beside its sign."""
    return next(
        dtype for dtype in (torch.int16, torch.int32, torch.int64) if num_leaves < torch.iinfo(dtype).bits
    )


def _not_above(threshold: float) -> float:
    """The greatest float32 that is not above it: no float32 lies between the two."""
    most = np.finfo(np.float32).max
    near = np.float32(np.clip(threshold, -most, most))
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))


def _unknown_goes_left(node: dict[str, Any]) -> bool:
    """Where NaN goes: LightGBM takes it for 0 at a split that met none when it grew."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return bool(node["threshold"] >= 0)
