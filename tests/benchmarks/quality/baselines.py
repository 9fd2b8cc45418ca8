"""Baselines that learn little or nothing from labels: popularity, past baskets, and EASE from LensKit.

Every baseline says two things of a row: its probability on the test part, by a model fitted to all rows before
that part, and its probability on the validation part, by a model that has seen the training part alone.

Shapes: N rows, U histories, K topics, C candidates.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from training.data.dataset import Examples
from training.data.split import TEST, TRAIN, VALIDATION
from training.evaluation.baselines import (
    CALIBRATION_ROWS,
    before_test,
    drawn_rows,
    popularity_score,
    probabilities,
)
from training.evaluation.metrics import auc

PENALTIES = (30.0, 100.0, 300.0, 1000.0)


def calibrated(data: Examples, score: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """A score that has seen no label, as probabilities, by two numbers fitted before the part in question."""
    fit_on, weights = drawn_rows(data, before_test(data), CALIBRATION_ROWS, seed)
    training = data.part[fit_on] == TRAIN

    def of(part: str, chosen: np.ndarray) -> np.ndarray:
        rows = fit_on[chosen]
        return probabilities(score[data.part == part], score[rows], data.labels[rows], weights[chosen])

    return {TEST: of(TEST, np.ones_like(training)), VALIDATION: of(VALIDATION, training)}


def popularity(data: Examples) -> np.ndarray:
    """The schema's popularity column, (N,)."""
    return popularity_score(data, np.arange(len(data.rows)))


def previous_baskets(data: Examples) -> np.ndarray:
    """Visits on which the user bought what the candidate covers, (N,); of equal ones, the dearer."""
    visits = data.rows["user_item_topic_sessions"].to_numpy(np.float64)
    amount = np.log1p(data.rows["user_item_topic_amount"].to_numpy(np.float64).clip(0))
    return np.asarray(np.log1p(visits) + 1e-3 * amount)


class Ease:
    """EASE (Steck 2019) by LensKit on user × topic: who bought this also bought that.

    A model for each event timestamp of an exposure, fitted to all histories known by then. A candidate's score
    is made of the scores of the topics it covers.

    Args:
        data: the examples.
        covers: one row per (candidate, topic it covers), columns item_id and topic.
    """

    def __init__(self, data: Examples, covers: pd.DataFrame) -> None:
        self.data = data
        self.as_of = _as_of(data)
        self.topic_ids = np.unique(
            data.interaction_histories.text_ids[data.interaction_histories.text_ids >= 0]
        )
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
        """Scores of a part's rows: mean and sum over the covered topics, of others' and of all weights."""
        rows = np.flatnonzero(self.data.part == part)
        timestamps = self.data.rows["event_timestamp"].to_numpy()[rows]
        histories = self.data.rows["history_id"].to_numpy()[rows]
        found = {name: np.zeros(len(rows)) for name in ("mean", "sum", "mean with own", "sum with own")}
        for as_of in np.unique(timestamps):
            here = np.flatnonzero(timestamps == as_of)
            weights = self._fitted(as_of, penalty)
            known, history = np.unique(histories[here], return_inverse=True)
            candidates, candidate = np.unique(self.item[rows[here]], return_inverse=True)
            covered = self.covered[candidates]
            size = np.maximum(np.asarray(covered.sum(1)).ravel(), 1)
            bought = self.bought[known]
            others = (covered @ (bought @ weights).T).T[history, candidate]
            own = np.asarray((bought @ covered.T).todense())[history, candidate]
            found["sum"][here], found["sum with own"][here] = others, others + own
            found["mean"][here] = others / size[candidate]
            found["mean with own"][here] = (others + own) / size[candidate]
        return found

    def _fitted(self, as_of: np.datetime64, penalty: float) -> np.ndarray:
        """The weights between topics, (K, K), as known then."""
        from lenskit.data import from_interactions_df
        from lenskit.knn import EASEScorer

        logging.getLogger("lenskit").setLevel(logging.ERROR)
        known = self.bought[np.flatnonzero(self.as_of <= as_of)].tocoo()
        frame = pd.DataFrame({"user_id": known.row, "item_id": known.col})
        predictor = EASEScorer(regularization=penalty)
        predictor.train(from_interactions_df(frame, items=np.arange(len(self.topic_ids))))
        places = predictor.items.numbers(np.arange(len(self.topic_ids)))
        return np.asarray(predictor.weights)[np.ix_(places, places)]


def _as_of(data: Examples) -> np.ndarray:
    """As of when each history is; those of no exposure and no next interactions are never known."""
    as_of = np.full(
        len(data.interaction_histories.text_ids), np.datetime64("2262-01-01"), dtype="datetime64[us]"
    )
    as_of[data.rows["history_id"].to_numpy()] = data.rows["event_timestamp"].to_numpy("datetime64[us]")
    if data.next_interactions is not None:
        as_of[data.next_interactions.history_id] = data.next_interactions.event_timestamp
    return as_of


def _bought(data: Examples, topic_ids: np.ndarray) -> sparse.csr_array:
    """1 where a history holds a topic, (U, K)."""
    text_ids = data.interaction_histories.text_ids
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

    from expectations.storage.datasets import current_folder

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
