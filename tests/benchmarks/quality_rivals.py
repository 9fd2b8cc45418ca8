"""Rivals that need no fine-tuning: popularity, past baskets, boosted trees, and EASE from LensKit.

Every rival says two things of a row: its probability on the test part, by a model fitted to all rows before
that part, and its probability on the validation part, by a model that has seen the training part alone.

Shapes: N rows, F features, U histories, K topics, C candidates.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from training.baselines import fitting_rows, popularity_score, probabilities
from training.examples import Examples
from training.metrics import auc, average_precision
from training.split import TEST, TRAIN, VALIDATION
from training.transforms import fit_transforms

MOST_TREES, PATIENCE = 600, 40
# Columns that may tell a campaign from others by its day rather than by what it is.
WITHOUT: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "day of the year": ("context_year_",),
    "context": ("context_",),
    "context and age of the campaign": ("context_", "item_days_", "item_campaign_days"),
}
PENALTIES = (30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Probabilities of one scorer.

    Attributes:
        test: (test rows,).
        validation: (validation rows,), by a model that did not see their labels; None where there is none.
    """

    test: np.ndarray
    validation: np.ndarray | None


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
        kept = [place for place, name in enumerate(self.names) if not name.startswith(tuple(prefixes))]
        return Features(values=self.values[:, kept], names=tuple(self.names[place] for place in kept))

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
    values = np.hstack([numbers, transforms.codes(data.rows).astype(np.float32)])
    return Features(values=values, names=(*schema.numeric, *schema.categorical))


def calibrated(data: Examples, score: np.ndarray, *, seed: int) -> Scored:
    """A score that has seen no label, as probabilities, by two numbers fitted before the part in question."""
    fit_on, share = fitting_rows(data, seed)

    def of(part: str, rows: np.ndarray) -> np.ndarray:
        return probabilities(score[data.part == part], score[rows], data.labels[rows], share)

    return Scored(
        test=of(TEST, fit_on),
        validation=of(VALIDATION, fit_on[data.part[fit_on] == TRAIN]),
    )


def popularity(data: Examples) -> np.ndarray:
    """The schema's popularity column, (N,)."""
    return popularity_score(data, np.arange(len(data.rows)))


def past_baskets(data: Examples) -> np.ndarray:
    """Visits on which the shopper bought what the candidate covers, (N,); of equal ones, the dearer."""
    visits = data.rows["cross_topic_visits"].to_numpy(np.float64)
    amount = np.log1p(data.rows["cross_topic_amount"].to_numpy(np.float64).clip(0))
    return np.asarray(np.log1p(visits) + 1e-3 * amount)


def tuned_trees(data: Examples, table: Features, *, trials: int, store: Path, seed: int) -> dict[str, Any]:
    """LightGBM's settings that are best on the validation part, by average precision, of some trials.

    The first trial is the pipeline's own baseline, so that tuning cannot end below it there.

    Args:
        data: the examples.
        table: their features.
        trials: number of trials.
        store: a file in which finished trials are kept; a killed search goes on.
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
        study.enqueue_trial({"num_leaves": 15, "learning_rate": 0.03, "without": "nothing"})

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
    fitted = lightgbm.train(
        _settings(settings, seed),
        lightgbm.Dataset(table.values[train], label=data.labels[train]),
        num_boost_round=MOST_TREES,
        valid_sets=[lightgbm.Dataset(table.values[validation], label=data.labels[validation])],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return fitted.best_iteration, np.asarray(fitted.predict(table.values[validation]))


def refitted_trees(
    data: Examples, table: Features, settings: dict[str, Any], *, num_trees: int, seed: int
) -> np.ndarray:
    """Probabilities of the test part by that many trees, fitted to all rows before it."""
    before = data.part != TEST
    fitted = lightgbm.train(
        _settings(settings, seed),
        lightgbm.Dataset(table.values[before], label=data.labels[before]),
        num_boost_round=num_trees,
    )
    return np.asarray(fitted.predict(table.values[~before]))


def _settings(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "metric": "average_precision",
        "num_threads": torch.get_num_threads(),
        "verbose": -1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        **settings,
    }


class Ease:
    """EASE (Steck 2019) by LensKit on shopper × topic: who bought this also bought that.

    A model for each moment of an exposure, fitted to all histories known by then. A candidate's score is made of
    the scores of the topics it covers.

    Args:
        data: the examples.
        covers: one row per (candidate, topic it covers), columns item_id and topic.
    """

    def __init__(self, data: Examples, covers: pd.DataFrame) -> None:
        self.data = data
        self.moment = _history_moments(data)
        self.topic_ids = np.unique(data.histories.text_ids[data.histories.text_ids >= 0])
        self.bought = _bought(data, self.topic_ids)
        items, self.item = np.unique(data.rows["item_id"].to_numpy(str), return_inverse=True)
        self.covered = _covered(data, covers, items, self.topic_ids)

    def scores(self, *, tell: Callable[[str], None]) -> np.ndarray:
        """Score of every row, (N,), by the penalty and the way to sum up that are best on the validation part."""
        found = {(p, how): a for p in PENALTIES for how, a in self._part(VALIDATION, p).items()}
        label = self.data.labels[self.data.part == VALIDATION]
        values = {key: auc(label, score) or 0.0 for key, score in found.items()}
        penalty, how = max(values, key=values.__getitem__)
        tell(f"EASE: penalty {penalty:g}, {how}: AUC {values[penalty, how]:.4f} on the validation part")
        score = np.zeros(len(self.data.rows))
        for part in (TRAIN, VALIDATION, TEST):
            score[self.data.part == part] = self._part(part, penalty)[how]
        return score

    def _part(self, part: str, penalty: float) -> dict[str, np.ndarray]:
        """Scores of a part's rows: mean and sum over the covered topics, of others' and of all likenesses."""
        rows = np.flatnonzero(self.data.part == part)
        moments = self.data.rows["event_timestamp"].to_numpy()[rows]
        histories = self.data.rows["history_id"].to_numpy()[rows]
        found = {name: np.zeros(len(rows)) for name in ("mean", "sum", "mean with own", "sum with own")}
        for moment in np.unique(moments):
            here = np.flatnonzero(moments == moment)
            weights = self._fitted(moment, penalty)
            people, person = np.unique(histories[here], return_inverse=True)
            candidates, candidate = np.unique(self.item[rows[here]], return_inverse=True)
            covered = self.covered[candidates]
            size = np.maximum(np.asarray(covered.sum(1)).ravel(), 1)
            bought = self.bought[people]
            others = (covered @ (bought @ weights).T).T[person, candidate]
            own = np.asarray((bought @ covered.T).todense())[person, candidate]
            found["sum"][here], found["sum with own"][here] = others, others + own
            found["mean"][here] = others / size[candidate]
            found["mean with own"][here] = (others + own) / size[candidate]
        return found

    def _fitted(self, moment: np.datetime64, penalty: float) -> np.ndarray:
        """The weights between topics, (K, K), as known at a moment."""
        from lenskit.data import from_interactions_df
        from lenskit.knn import EASEScorer

        logging.getLogger("lenskit").setLevel(logging.ERROR)
        known = self.bought[np.flatnonzero(self.moment <= moment)].tocoo()
        frame = pd.DataFrame({"user_id": known.row, "item_id": known.col})
        scorer = EASEScorer(regularization=penalty)
        scorer.train(from_interactions_df(frame, items=np.arange(len(self.topic_ids))))
        places = scorer.items.numbers(np.arange(len(self.topic_ids)))
        return np.asarray(scorer.weights)[np.ix_(places, places)]


def _history_moments(data: Examples) -> np.ndarray:
    """The moment of each history; those of no exposure and no future are never known."""
    moment = np.full(len(data.histories.text_ids), np.datetime64("2262-01-01"), dtype="datetime64[us]")
    moment[data.rows["history_id"].to_numpy()] = data.rows["event_timestamp"].to_numpy("datetime64[us]")
    if data.futures is not None:
        moment[data.futures.history_id] = data.futures.moment
    return moment


def _bought(data: Examples, topic_ids: np.ndarray) -> sparse.csr_array:
    """1 where a history holds a topic, (U, K)."""
    text_ids = data.histories.text_ids
    history, _ = np.nonzero(text_ids >= 0)
    topic = np.searchsorted(topic_ids, text_ids[text_ids >= 0])
    ones = np.ones(len(topic), dtype=np.float32)
    return sparse.csr_array((ones, (history, topic)), shape=(len(text_ids), len(topic_ids)))


def _covered(
    data: Examples, covers: pd.DataFrame, items: np.ndarray, topic_ids: np.ndarray
) -> sparse.csr_array:
    """1 where a candidate covers a topic, (C, K)."""
    place = {data.texts[text_id]: at for at, text_id in enumerate(topic_ids)}
    number = {item: at for at, item in enumerate(items)}
    pairs = covers[covers["item_id"].isin(number) & covers["topic"].isin(place)]
    row, column = pairs["item_id"].map(number).to_numpy(), pairs["topic"].map(place).to_numpy()
    ones = np.ones(len(pairs), dtype=np.float32)
    return sparse.csr_array((ones, (row, column)), shape=(len(items), len(topic_ids)))


def covers_of(checked: Path) -> pd.DataFrame:
    """Which topics each campaign's items are of: distinct (item_id, topic), from the checked tables."""
    import duckdb

    from expectations.contracts.landing import current_folder

    tables = {
        name: str(current_folder(checked / name) / "**" / "*.parquet") for name in ("items", "relations")
    }
    return duckdb.execute(
        """
        SELECT DISTINCT edges.source_id AS item_id, array_to_string(things.categories, ', ') AS topic
        FROM read_parquet(?) AS edges JOIN read_parquet(?) AS things ON things.item_id = edges.target_id
        WHERE edges.relation = 'covers'
        """,
        [tables["relations"], tables["items"]],
    ).df()
