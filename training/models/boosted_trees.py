"""Boosted trees: the part of g that thresholds on past outcomes give, beside its networks.

LightGBM fits them (Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree"), predicts with them
and attributes their logit to features by TreeSHAP (Lundberg et al. 2020, "From local explanations to global
understanding with explainable AI for trees"). A model is kept as LightGBM's own text, in checkpoints as in bundles:
nothing is pickled. By hand is what LightGBM does not know of: the mean over models and the correction for sampling.

Shapes: N rows, D features (numeric, then codes of categories).
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expectations.errors import SettingError
from training.config.recipe import TabularModelSettings
from training.runtime import distributed
from training.runtime.device import num_threads

MAX_DEPTH = 8  # splits between root and leaf, at most
FEATURE_FRACTION, BAGGING_FRACTION = 0.5, 0.7  # of the features and of the rows that a tree sees
LAMBDA_L2 = 5.0  # penalty of a leaf's value
MIN_DATA_IN_LEAF, LEAVES_OF_ROWS = 100, 200  # rows of a leaf, at least; of few rows so small a part of them
PATIENCE = 50  # trees that may pass without a better one on the validation part

TreeRows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features (N, D), numbers, then codes; labels (N,), 0 to 1; weights (N,)."""


def train_boosting(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    params: Mapping[str, Any],
    *,
    num_trees: int,
    seed: int,
    weights_N: np.ndarray | None = None,
    categorical: Sequence[int] = (),
    validation: tuple[np.ndarray, ...] | None = None,
    patience: int = 0,
) -> Any:
    """LightGBM's model of binary labels, the same at every run.

    Args:
        features_ND: of the rows to learn from.
        labels_N: 0 to 1.
        params: LightGBM's, beside those that are fixed here.
        num_trees: how many to grow, at most.
        seed: of what a tree sees.
        weights_N: how much each row counts; None: all the same.
        categorical: places of the features that are codes of categories, not numbers.
        validation: features, labels and, if they differ, weights of other rows: training stops by the metric there,
            which is average precision where the params name no other.
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
        "objective": "binary" if np.isin(labels_N, (0, 1)).all() else "cross_entropy",
        "num_threads": num_threads(),
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    stop = {}
    if validation is not None:
        features, labels, *weights = validation
        defaults["metric"] = "average_precision"
        stop["valid_sets"] = [
            lightgbm.Dataset(features, label=labels, weight=weights[0] if weights else None)
        ]
        stop["callbacks"] = [lightgbm.early_stopping(patience, verbose=False)]
    data = lightgbm.Dataset(
        features_ND, label=labels_N, weight=weights_N, categorical_feature=list(categorical)
    )
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
            "To train without trees: pip uninstall lightgbm, or boosting_models = 0"
        ) from error


class BoostedTrees(nn.Module):
    """The mean of boosted models, each with a draw of the negatives of its own.

    Attributes:
        texts: LightGBM's text of each fitted model; empty until fitted.
        offset: log(sampling rate of the negatives), which corrects the logit for it.
    """

    def __init__(self, settings: TabularModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.texts: list[str] = []
        self._boosters: list[Any] = []
        self.offset = nn.Buffer(torch.tensor(0.0))

    @property
    def fitted(self) -> bool:
        """Whether there are trees."""
        return bool(self.texts)

    @property
    def num_trees(self) -> int:
        """How many trees a model has, on average."""
        return round(np.mean([booster.num_trees() for booster in self._boosters])) if self.fitted else 0

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """Logit of each row, (N,); the trees must be fitted."""
        return self._mean(numbers_NF, codes_NC, raw_score=True) + self.offset

    def contributions(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """SHAP contribution of each feature, (N, D): with the trees' mean logit they add up to the row's."""
        return self._mean(numbers_NF, codes_NC, pred_contrib=True)[:, :-1]  # the last is that mean logit

    def _mean(self, numbers_NF: Tensor, codes_NC: Tensor, **kind: bool) -> Tensor:
        features_ND = torch.cat([numbers_NF, codes_NC.to(numbers_NF.dtype)], dim=1).cpu().numpy()
        threads = num_threads()
        found = [booster.predict(features_ND, num_threads=threads, **kind) for booster in self._boosters]
        return torch.from_numpy(np.mean(found, axis=0)).to(numbers_NF)

    def fit(
        self,
        draw: Callable[[int], TreeRows],
        *,
        num_trees: int,
        sampling_rate: float,
        seed: int,
        validation: TreeRows | None = None,
    ) -> int:
        """Fit the trees, each process some of the models; without LightGBM nothing is changed.

        Args:
            draw: model -> the rows that it learns from.
            num_trees: of a model, at most.
            sampling_rate: fraction of the negatives that is among these; the logits are corrected for it.
            seed: of what a tree sees.
            validation: other rows, their negatives drawn at the same rate: where they are best, a model stops.

        Returns:
            How many trees a model has, on average.
        """
        if import_lightgbm() is None:
            return 0
        params = {
            "learning_rate": self.settings.tree_learning_rate,
            "num_leaves": self.settings.num_leaves,
            "max_depth": MAX_DEPTH,
            "feature_fraction": FEATURE_FRACTION,
            "bagging_fraction": BAGGING_FRACTION,
            "bagging_freq": 1,
            "lambda_l2": LAMBDA_L2,
            "metric": "cross_entropy",
        }

        def text(model: int) -> str:  # a model's rows are gone before the next one's are made
            features, labels, weights = draw(model)
            booster = train_boosting(
                features,
                labels,
                {**params, "min_data_in_leaf": max(2, min(MIN_DATA_IN_LEAF, len(labels) // LEAVES_OF_ROWS))},
                num_trees=num_trees,
                seed=seed + model,
                weights_N=weights,
                validation=validation,
                patience=PATIENCE,
            )
            return str(booster.model_to_string(num_iteration=booster.best_iteration))

        own = distributed.interleaved_shard(range(self.settings.boosting_models))
        self.load_texts(distributed.gathered(text(model) for model in own))
        self.offset.fill_(float(np.log(sampling_rate)))
        return self.num_trees

    def load_texts(self, texts: Sequence[str]) -> None:
        """Take the models that LightGBM wrote as texts.

        Raises:
            SettingError: there are some, and LightGBM is not installed.
        """
        lightgbm = import_lightgbm()
        if texts and lightgbm is None:
            raise SettingError(
                "this model has boosted trees, and LightGBM is not installed: pip install lightgbm"
            )
        self.texts = list(texts)
        self._boosters = [lightgbm.Booster(model_str=text) for text in texts]

    def get_extra_state(self) -> Tensor:
        """The texts as a tensor of bytes, so that they are in `state_dict` and with it in checkpoints."""
        return torch.from_numpy(np.frombuffer(json.dumps(self.texts).encode(), np.uint8).copy())

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `get_extra_state` gave."""
        texts = json.loads(state.cpu().numpy().tobytes())
        if texts != self.texts:
            self.load_texts(texts)
