"""Metrics of logits on the validation part, and what is chosen by them."""

import numpy as np

from training.data.dataset import Examples
from training.data.sampling import all_positive_query_groups
from training.evaluation.metrics import LOWER_IS_BETTER, metrics_of_logits
from training.models.calibration import fit_calibration

MAX_VALIDATION_ROWS = (
    1 << 18
)  # of more in query groups with a positive, whole groups of about so many are measured
MIN_OTHER_ROWS = (
    1 << 15
)  # of query groups without a positive: of more than these and of those with one, a sample
LOG_LOSS = "log_loss"


class ValidationMetrics:
    """What is measured on the validation part, always on the same J rows.

    Args:
        data: the examples.
        validation: row numbers of the validation part.
        metric: the one that decides.

    Attributes:
        rows: (J,) row numbers, ascending.
        labels: (J,) 0 to 1.
        weights: (J,) how much each counts; more where a row stands for others that are not measured.
        metric: the one that decides; log loss where the part cannot be measured by what was asked for.
    """

    def __init__(self, data: Examples, validation: np.ndarray, metric: str) -> None:
        self.columns = data.columns
        self.rows, stands_for = all_positive_query_groups(
            data.columns, validation, MAX_VALIDATION_ROWS, MIN_OTHER_ROWS
        )
        self.labels, weights = (data.columns.at(name, self.rows) for name in ("label", "weight"))
        self.weights = weights * stands_for
        self.metric = LOG_LOSS
        if metric != LOG_LOSS and self.compute(np.zeros(len(self.rows)))[metric] is not None:
            self.metric = metric

    def compute(self, logit_J: np.ndarray) -> dict[str, float | None]:
        """Every metric of some logits; log loss and calibration error after Platt scaling, as a bundle has it."""
        slope, shift = fit_calibration(logit_J, self.labels, self.weights)
        query_group_id = self.columns.at("query_group_id", self.rows)
        return metrics_of_logits(self.labels, slope * logit_J + shift, query_group_id, self.weights)

    def quality(self, logit_J: np.ndarray) -> float:
        """The metric that decides, the higher the better."""
        value = self.compute(logit_J)[self.metric]
        return -np.inf if value is None else -value if self.metric in LOWER_IS_BETTER else value

    def by_part(self, text_J: np.ndarray, tabular_J: np.ndarray) -> dict[str, float | None]:
        """How far f and g come alone, and how much each varies, in logits."""
        found: dict[str, float | None] = {}
        for name, part in (("text_logit", text_J), ("tabular_logit", tabular_J)):
            metrics = self.compute(part)
            shown = ("auc", "average_precision", "ndcg_at_10")
            found |= {f"{name}_std": float(part.std()), **{f"{name}_{key}": metrics[key] for key in shown}}
        return found
