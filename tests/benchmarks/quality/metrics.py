"""Metrics of scorers with three seeds: mean, spread, intervals, paired differences, slices, campaign level.

Intervals resample users (`training.evaluation.bootstrap`), with the same draws for every scorer and seed. A draw's
metric is the mean over the seeds, so an interval is of the mean that stands beside it.

Shapes: N rows, R draws, U users, G query groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from training.data.dataset import Examples
from training.evaluation.bootstrap import draw_weights, interval, resampled_metrics
from training.evaluation.evaluate import slices
from training.evaluation.metrics import metrics_of_probabilities

METRICS = ("auc", "average_precision", "log_loss", "calibration_error", "ndcg_at_10")
DRAWS = 200
BELOW = 1e-9  # probabilities are kept so far from 0 and 1


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows that scorers are compared on.

    Attributes:
        label: (N,) 0 or 1.
        query_group_id: (N,) query group of each row.
        user: (N,) user of each row, 0 to U - 1.
        draws: (R, U) how often each user is drawn.
    """

    label: np.ndarray
    query_group_id: np.ndarray
    user: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, data: Examples, rows: np.ndarray) -> "Rows":
        """Of some rows of the examples."""
        frame = data.rows.iloc[rows]
        user = np.unique(frame["user_id"].to_numpy(str), return_inverse=True)[1]
        return cls(
            label=frame["label"].to_numpy(np.int64),
            query_group_id=frame["query_group_id"].to_numpy(),
            user=user,
            draws=draw_weights(int(user.max()) + 1, draws=DRAWS, seed=0),
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a scorer came to.

    Attributes:
        by_seed: metric -> its value with each seed.
        draws: metric -> (R,) mean over the seeds in each draw.
    """

    by_seed: dict[str, list[float]]
    draws: dict[str, np.ndarray]

    def mean(self, name: str) -> float:
        """Mean of a metric over the seeds."""
        return float(np.mean(self.by_seed[name]))

    def facts(self) -> dict[str, Any]:
        """JSON-able: for each metric mean, deviation between seeds, interval, and the seeds' values."""
        return {
            name: {
                "mean": self.mean(name),
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "interval": interval(self.draws[name]),
                "by_seed": values,
            }
            for name, values in self.by_seed.items()
        }


def measured(rows: Rows, by_seed: Sequence[np.ndarray]) -> Measured:
    """Metrics of a scorer's probabilities, (N,) for each seed."""
    points = [metrics_of_probabilities(rows.label, p, rows.query_group_id) for p in by_seed]
    draws = [resampled_metrics(rows.label, p, rows.query_group_id, rows.user, rows.draws) for p in by_seed]
    return Measured(
        by_seed={name: [float(point[name] or np.nan) for point in points] for name in METRICS},
        draws={name: np.mean([draw[name] for draw in draws], axis=0) for name in METRICS},
    )


def difference(ours: Measured, theirs: Measured) -> dict[str, dict[str, Any]]:
    """Ours minus theirs, each metric with its interval over the same draws."""
    return {
        name: {
            "difference": ours.mean(name) - theirs.mean(name),
            "interval": interval(ours.draws[name] - theirs.draws[name]),
        }
        for name in ours.by_seed
    }


def by_slice(
    data: Examples, rows: np.ndarray, found: dict[str, Sequence[np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """AUC, average precision and NDCG@10 (where measured) of every scorer in every slice, means over the seeds."""
    label, groups = data.labels[rows], data.rows["query_group_id"].to_numpy()[rows]
    result: dict[str, dict[str, Any]] = {}
    for slice_name, mask in slices(data, rows).items():
        num_rows, num_positive = int(mask.sum()), int(label[mask].sum())
        result[slice_name] = {"num_rows": num_rows, "num_positive": num_positive, "metrics": {}}
        if not 0 < num_positive < num_rows:
            continue
        for predictor, by_seed in found.items():
            points = [metrics_of_probabilities(label[mask], p[mask], groups[mask]) for p in by_seed]
            result[slice_name]["metrics"][predictor] = {
                name: float(np.mean([point[name] for point in points]))
                for name in ("auc", "average_precision", "ndcg_at_10")
                if points[0][name] is not None
            }
    return result


@dataclass(frozen=True, kw_only=True)
class QueryGroups:
    """What the coupons of one campaign to one user come to.

    Attributes:
        label: (G,) 1 where any row is a positive.
        user: (G,) the user.
        any: (G,) 1 - Π(1 - p): the chance of any positive, were they independent.
        greatest: (G,) the greatest p.
    """

    label: np.ndarray
    user: np.ndarray
    any: np.ndarray
    greatest: np.ndarray

    @classmethod
    def of(
        cls, label: np.ndarray, probability: np.ndarray, query_group_id: np.ndarray, user: np.ndarray
    ) -> "QueryGroups":
        """From the rows of the query groups."""
        p = np.clip(probability.astype(np.float64), BELOW, 1 - BELOW)
        frame = pd.DataFrame(
            {"group": query_group_id, "user": user, "label": label, "p": p, "miss": np.log1p(-p)}
        )
        groups = frame.groupby("group").agg(
            label=("label", "max"), user=("user", "first"), greatest=("p", "max"), miss=("miss", "sum")
        )
        return cls(
            label=groups["label"].to_numpy(np.int64),
            user=groups["user"].to_numpy(),
            any=-np.expm1(groups["miss"].to_numpy()),
            greatest=groups["greatest"].to_numpy(),
        )

    def inputs(self) -> np.ndarray:
        """(G, 2): the logits of both."""
        both = np.clip(np.stack([self.any, self.greatest], axis=1), BELOW, 1 - BELOW)
        return np.asarray(np.log(both) - np.log1p(-both))


def campaign_level(
    test: Rows, by_seed: Sequence[np.ndarray], validation: Rows, searched: np.ndarray | None
) -> dict[str, Measured]:
    """Is any coupon of the campaign a positive? By three ways to put a query group's probabilities together.

    Args:
        test: the test rows.
        by_seed: the scorer's probabilities there, with each seed.
        validation: the validation rows.
        searched: probabilities there by a model that has not seen them; None: nothing to fit to.

    Returns:
        "any" and "greatest" of `QueryGroups`, and "fitted": a logistic regression on the logits of both, fitted to
        the validation part's query groups.
    """
    of_seed = [QueryGroups.of(test.label, p, test.query_group_id, test.user) for p in by_seed]
    scores = {"any": [groups.any for groups in of_seed], "greatest": [groups.greatest for groups in of_seed]}
    if searched is not None:
        known = QueryGroups.of(validation.label, searched, validation.query_group_id, validation.user)
        model = LogisticRegression(C=1.0).fit(known.inputs(), known.label)
        scores["fitted"] = [model.predict_proba(groups.inputs())[:, 1] for groups in of_seed]
    rows = query_group_rows(test)
    return {name: measured(rows, values) for name, values in scores.items()}


def query_group_rows(rows: Rows) -> Rows:
    """The query groups of some rows as rows, by rising `query_group_id`: positive where any row is."""
    groups = QueryGroups.of(rows.label, np.full(len(rows.label), 0.5), rows.query_group_id, rows.user)
    return Rows(
        label=groups.label, query_group_id=np.arange(len(groups.label)), user=groups.user, draws=rows.draws
    )
