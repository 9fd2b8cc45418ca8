"""Metrics of logits on the validation part, and what is chosen by them."""

import numpy as np

from training.data.dataset import Examples
from training.data.sampling import whole_query_groups
from training.evaluation.metrics import LOWER_IS_BETTER, metrics_of_logits
from training.inference.batch_scoring import Scores

# Of a larger validation part, whole query groups of about so many rows are measured.
MAX_VALIDATION_ROWS = 1 << 18
SCALES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


class ValidationMetrics:
    """What is measured on the validation part, always on the same J rows.

    Args:
        data: the examples.
        validation: row numbers of the validation part.
        metric: the one that decides.
    """

    def __init__(self, data: Examples, validation: np.ndarray, metric: str) -> None:
        self.columns, self.metric = data.columns, metric
        drawn = whole_query_groups(data.columns, validation, MAX_VALIDATION_ROWS)
        both = 0 < data.columns["label"][drawn].sum() < len(drawn)
        self.rows = drawn if both else validation  # of few positives, none may be in the drawn groups
        self.labels = data.columns["label"][self.rows].astype(np.float32)

    def compute(self, logit_J: np.ndarray) -> dict[str, float | None]:
        """Every metric of some logits."""
        return metrics_of_logits(self.labels, logit_J, self.columns.at("query_group_id", self.rows))

    def best_scale(self, rest_J: np.ndarray, part_J: np.ndarray) -> float:
        """The scale of a part of the logit beside the rest that the metric finds best."""
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        values = [self.compute(scale * part_J + rest_J)[self.metric] for scale in SCALES]
        return SCALES[int(np.argmax([sign * (value or 0) for value in values]))]

    def by_part(self, scores: Scores) -> dict[str, float | None]:
        """How far f and g come alone, and how much each varies, in logits."""
        found: dict[str, float | None] = {}
        for name, part in (("text_logit", scores.text_logit), ("tabular_logit", scores.tabular_logit)):
            metrics = self.compute(part)
            shown = ("auc", "average_precision", "ndcg_at_10")
            found |= {f"{name}_std": float(part.std()), **{f"{name}_{key}": metrics[key] for key in shown}}
        return found
