"""Boosted trees: LightGBM on every feature that ours has, its settings searched, at coupon and at campaign level.

Two more say how far the goals are from what can be known. One knows what each user will buy of a candidate's products
while it is valid: it leaks on purpose and competes with nobody; what it still misses is which candidates of a query
group were really sent, and chance. The other has, instead of a text model, user-item features of just what a
candidate's text names.

Shapes: N rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expectations.storage.datasets import current_folder
from tests.benchmarks.quality.ablation import USER_ITEM
from training.data.dataset import Examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.data.transforms import fit_transforms
from training.evaluation.baselines import LEAVES, RATE
from training.evaluation.metrics import auc, average_precision
from training.models.boosted_trees import train_boosting

MOST_TREES, PATIENCE = 600, 40
# Columns that may tell a campaign from others by its day rather than by what it is.
WITHOUT: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "day of the year": ("context_year_",),
    "context": ("context_",),
    "context and age of the campaign": ("context_", "item_days_", "item_campaign_days"),
    "context, age and counts of the campaign": (
        "context_",
        "item_days_",
        "item_campaign_days",
        "item_num_",
        "item_outcome_lift",
    ),
}
BASELINE = {
    "num_leaves": LEAVES,
    "learning_rate": RATE,
    "min_data_in_leaf": 20,
    "feature_fraction": 1.0,
    "bagging_fraction": 1.0,
    "lambda_l2": 0.01,
    "without": "nothing",
}
CAMPAIGN_SETTINGS = {"num_leaves": 15, "learning_rate": 0.03, "min_data_in_leaf": 20}
EXPOSURE = ["user_id", "item_id", "event_timestamp"]
FUTURE = ("visits", "items", "amount")
NAMED = ("user_item_topic_", "user_item_category_", "user_item_department_")


@dataclass(frozen=True, kw_only=True)
class Features:
    """Every feature that the schema names, as LightGBM takes it.

    Attributes:
        values: (N, F) float32; categories by their codes, most frequent first.
        names: (F,) names.
    """

    values: np.ndarray
    names: tuple[str, ...]

    def without(self, prefixes: Sequence[str]) -> "Features":
        """Those whose names do not begin so."""
        left = [place for place, name in enumerate(self.names) if not name.startswith(tuple(prefixes))]
        return Features(values=self.values[:, left], names=tuple(self.names[place] for place in left))

    def beside(self, name: str, column: np.ndarray) -> "Features":
        """With one column more."""
        values = np.hstack([self.values, column.astype(np.float32)[:, None]])
        return Features(values=values, names=(*self.names, name))


def features(data: Examples) -> Features:
    """The features that ours has too."""
    schema = data.schema
    transforms = fit_transforms(
        data.rows[data.part == TRAIN], numeric=schema.numeric, categorical=schema.categorical, bins=2
    )
    numbers = data.rows[list(schema.numeric)].to_numpy(np.float32)
    values = np.hstack([numbers, transforms.categorical_features(data.rows).astype(np.float32)])
    return Features(values=values, names=(*schema.numeric, *schema.categorical))


def tuned_trees(data: Examples, table: Features, *, trials: int, store: Path, seed: int) -> dict[str, Any]:
    """LightGBM's settings that are best on the validation part, by average precision, of some trials.

    The first trial is the pipeline's own baseline, so that tuning cannot end below it there.

    Args:
        data: the examples.
        table: their features.
        trials: number of trials.
        store: a file in which finished trials are stored; a killed search goes on.
        seed: of the search.

    Returns:
        settings, without (a key of WITHOUT), num_trees, and the trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{store}",
        study_name="trees",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, trials // 2)),
    )
    if not study.trials:
        study.enqueue_trial(BASELINE)

    def objective(trial: optuna.Trial) -> float:
        settings = {
            "num_leaves": trial.suggest_int("num_leaves", 4, 63, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.015, 0.1, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 20, 2000, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "bagging_freq": 1,
            "lambda_l2": trial.suggest_float("lambda_l2", 0.01, 100.0, log=True),
        }
        without = trial.suggest_categorical("without", list(WITHOUT))
        trees, scored = searched_trees(data, table.without(WITHOUT[without]), settings, seed=seed)
        trial.set_user_attr("num_trees", trees)
        trial.set_user_attr("settings", settings)
        label = data.labels[data.part == VALIDATION]
        trial.set_user_attr("auc", auc(label, scored))
        return float(average_precision(label, scored) or 0.0)

    finished = [trial for trial in study.trials if trial.state.is_finished()]
    study.optimize(objective, n_trials=max(0, trials - len(finished)))
    best = study.best_trial
    return {
        "settings": best.user_attrs["settings"],
        "without": best.params["without"],
        "num_trees": best.user_attrs["num_trees"],
        "trials": [
            {
                **trial.params,
                **{k: v for k, v in trial.user_attrs.items() if k != "settings"},
                "average_precision": trial.value,
            }
            for trial in study.trials
            if trial.value is not None
        ],
    }


def searched_trees(
    data: Examples, table: Features, settings: dict[str, Any], *, seed: int
) -> tuple[int, np.ndarray]:
    """Trees fitted to the training part and stopped by average precision on the validation part.

    Returns:
        The number of trees, and the probabilities of the validation part.
    """
    train, validation = data.part == TRAIN, data.part == VALIDATION
    fitted = train_boosting(
        table.values[train],
        data.labels[train],
        settings,
        num_trees=MOST_TREES,
        seed=seed,
        validation=(table.values[validation], data.labels[validation]),
        patience=PATIENCE,
    )
    return fitted.best_iteration, np.asarray(fitted.predict(table.values[validation]))


def refitted_trees(
    data: Examples, table: Features, settings: dict[str, Any], *, num_trees: int, seed: int
) -> np.ndarray:
    """Probabilities of the test part by that many trees, fitted to all rows before it."""
    before = data.part != TEST
    fitted = train_boosting(
        table.values[before], data.labels[before], settings, num_trees=num_trees, seed=seed
    )
    return np.asarray(fitted.predict(table.values[~before]))


def campaign_trees(data: Examples, table: Features, *, seed: int) -> np.ndarray:
    """Trees that are fitted to whole query groups: is any of their rows a positive? Test part, by `query_group_id`.

    A group's features are the means, sums and greatest values of its rows' features. The number of trees is the best
    on the validation part; then they are fitted to all groups before the test part.
    """
    query_group_id = data.rows["query_group_id"].to_numpy()
    frame = pd.DataFrame(table.values, columns=list(table.names)).groupby(query_group_id)
    values = np.hstack([frame.mean(), frame.sum(), frame.max()]).astype(np.float32)
    parts = pd.Series(data.part).groupby(query_group_id).first().to_numpy()
    label = pd.Series(data.labels).groupby(query_group_id).max().to_numpy()

    def groups_of(*names: str) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.isin(parts, names)
        return values[chosen], label[chosen]

    searched = train_boosting(
        *groups_of(TRAIN),
        CAMPAIGN_SETTINGS,
        num_trees=MOST_TREES,
        seed=seed,
        validation=groups_of(VALIDATION),
        patience=PATIENCE,
    )
    num_trees = searched.best_iteration
    fitted = train_boosting(*groups_of(TRAIN, VALIDATION), CAMPAIGN_SETTINGS, num_trees=num_trees, seed=seed)
    return np.asarray(fitted.predict(values[parts == TEST]))


def bought_later(checked: Path) -> pd.DataFrame:
    """What each user bought of each candidate's products from the exposure to the end of its validity.

    Args:
        checked: the folder of checked tables.

    Returns:
        One row per exposure with such a purchase: user_id, item_id, event_timestamp of the exposure; visits, items
        (different ones), amount (currency).
    """
    import duckdb

    tables = {
        name: str(current_folder(checked / name) / "**" / "*.parquet")
        for name in ("exposures", "items", "relations", "events")
    }
    return duckdb.execute(
        """
        SELECT shown.user_id, shown.item_id, shown.event_timestamp,
               count(DISTINCT bought.session_id) AS visits,
               count(DISTINCT bought.item_id) AS items, sum(bought.amount) AS amount
        FROM read_parquet($exposures) AS shown
        JOIN read_parquet($items) AS candidate USING (item_id)
        JOIN read_parquet($relations) AS edges
          ON edges.source_id = shown.item_id AND edges.relation = 'covers'
        JOIN read_parquet($events) AS bought
          ON bought.user_id = shown.user_id AND bought.item_id = edges.target_id
         AND bought.event_type = 'purchase'
         AND bought.event_timestamp >= shown.event_timestamp
         AND bought.event_timestamp < candidate.valid_until
        GROUP BY ALL
        """,
        tables,
    ).df()


def with_future(table: Features, data: Examples, later: pd.DataFrame) -> Features:
    """All features, and what the user will buy."""
    of_row = data.rows[EXPOSURE].merge(later, how="left", on=EXPOSURE, validate="many_to_one")
    for name in FUTURE:
        table = table.beside(f"future_{name}", of_row[name].fillna(0.0).to_numpy())
    return table


def with_named_counts(table: Features) -> Features:
    """No user-item feature but those of what the candidate's text names."""
    others = [name for name in table.names if name.startswith(USER_ITEM) and not name.startswith(NAMED)]
    return table.without(others)
