"""What anyone fits in an afternoon on the same rows: trees on the raw columns, logistic regression on texts, rates.

A row of weight w and label y is two rows to them: w y positives and w (1 - y) negatives. What they choose (number of
trees, strength of the penalty), they choose by log loss on the validation part; then they are fitted to all rows before
the test part.

Shapes: N rows, P distinct pairs of text and query.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from expectations.contracts.schema import Table
from expectations.storage.datasets import current, current_folder
from training.data.split import TEST, TRAIN, VALIDATION

CONSTANT, POPULARITY = "constant", "popularity by past outcomes"
LIGHTGBM, CATBOOST = "LightGBM, raw columns", "CatBoost, raw columns"
FROZEN, TF_IDF = "logistic regression, frozen vectors", "logistic regression, TF-IDF"
SEEDED = (CATBOOST,)  # the others give the same whatever the seed
PRIOR = 20.0  # rows of the mean rate that an item's own rate is drawn to
MOST_TREES, PATIENCE, FEW_TREES = 500, 30, 50
MOST_ROWS = 200_000  # more: all positives, and as many of the negatives, with their weight
PENALTIES = {
    FROZEN: tuple(10.0**power for power in range(-4, 2)),
    TF_IDF: tuple(10.0**power for power in range(-1, 4)),
}
# Known only after the exposure, or names of rows, or texts.
NOT_COLUMNS = frozenset(
    (
        "exposure_id", "event_timestamp", "request_id", "query_text", "outcome", "outcome_value", "outcome_timestamp",
        "impressions", "clicks", "propensity", "text", "image", "created_at", "valid_from", "valid_until",
    )
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlainRows:
    """A shop's rows as plain methods take them.

    Attributes:
        columns: (N, …) raw columns: numbers, and strings as categories.
        item: (N,) item ids.
        text, query: (N,) numbers of texts; -1: no query.
        texts: the texts.
        label: (N,) in [0, 1].
        weight: (N,) > 0.
        part: (N,) train, validation or test.
        vectors: reads texts into (texts, E) vectors of length 1.
    """

    columns: pd.DataFrame
    item: np.ndarray
    text: np.ndarray
    query: np.ndarray
    texts: list[str]
    label: np.ndarray
    weight: np.ndarray
    part: np.ndarray
    vectors: Callable[[list[str]], np.ndarray]
    _read: dict[str, np.ndarray] = field(default_factory=dict)

    def base_rate(self, *parts: str) -> float:
        """Rate of positives."""
        rows = np.isin(self.part, parts)
        return float(np.average(self.label[rows], weights=self.weight[rows]))


def raw_columns(tables: Mapping[str, pd.DataFrame], contracts: Mapping[str, Table]) -> pd.DataFrame:
    """Exposures with the columns of their item and user, by exposure_id; hour and weekday in place of the time.

    Strings become categories, also ids, but for those that name hardly more than one row.
    """
    shown = tables["exposures"]
    texts = {column.name for table in contracts.values() for column in table.extras if column.extra == "text"}
    frame = _raw(shown, texts).set_index(shown["exposure_id"])
    for name, key in (("items", "item_id"), ("users", "user_id")):
        if name in tables and key in frame:
            attributes = _raw(tables[name], texts).set_index(key)
            frame = frame.join(attributes.add_prefix(f"{name}_"), on=key)
    when = pd.to_datetime(shown["event_timestamp"]).to_numpy()
    frame["hour"], frame["weekday"] = pd.DatetimeIndex(when).hour, pd.DatetimeIndex(when).weekday
    columns = {name: values for name, column in frame.items() if (values := _column(column)) is not None}
    return pd.DataFrame(columns, index=frame.index)


def _raw(table: pd.DataFrame, texts: set[str]) -> pd.DataFrame:
    found = table.drop(columns=[*(NOT_COLUMNS | texts) & set(table.columns)])
    if "categories" in found:
        levels = pd.DataFrame(
            [list(path) if path is not None else [] for path in found.pop("categories")], index=found.index
        )
        found = found.join(levels.rename(columns=lambda level: f"category_{level}"))
    return found


def _column(values: pd.Series) -> pd.Series | None:
    """A column as trees take it; None where it says nothing, or nearly as much as the number of the row."""
    num_distinct = values.nunique(dropna=False)
    if num_distinct < 2:
        return None
    if values.dtype == bool or pd.api.types.is_numeric_dtype(values):
        return values.astype(np.float32)
    if pd.api.types.is_datetime64_any_dtype(values) or num_distinct > len(values) / 2:
        return None
    return values.astype("string").fillna("").astype("category")


def scores(method: str, rows: PlainRows, *, seed: int) -> np.ndarray:
    """Probabilities of the test rows by a method."""
    return METHODS[method](rows, seed)


def constant(rows: PlainRows, _seed: int) -> np.ndarray:
    """The rate of all rows before the test part."""
    return np.full(int((rows.part == TEST).sum()), rows.base_rate(TRAIN, VALIDATION))


def popularity(rows: PlainRows, _seed: int) -> np.ndarray:
    """Each item's own rate before the test part, drawn to the mean rate; of a new item the mean rate."""
    before, base = rows.part != TEST, rows.base_rate(TRAIN, VALIDATION)
    known = pd.DataFrame({"positive": rows.label * rows.weight, "weight": rows.weight})[before]
    sums = known.groupby(rows.item[before]).sum()
    rate = (sums["positive"] + PRIOR * base) / (sums["weight"] + PRIOR)
    return pd.Series(rows.item[~before]).map(rate).fillna(base).to_numpy(float)


def lightgbm(rows: PlainRows, seed: int) -> np.ndarray:
    """LightGBM with its defaults, rate 0.05."""
    from lightgbm import LGBMClassifier, early_stopping

    def fit(known: "_Doubled", stop: "_Doubled | None", trees: int) -> tuple[Any, int]:
        model = LGBMClassifier(n_estimators=trees, learning_rate=0.05, random_state=seed, verbose=-1)
        stopping: dict[str, Any] = {}
        if stop is not None:
            stopping = {
                "eval_X": (stop.columns,),
                "eval_y": (stop.label,),
                "eval_sample_weight": [stop.weight],
                "callbacks": [early_stopping(PATIENCE, verbose=False)],
            }
        model.fit(known.columns, known.label, sample_weight=known.weight, **stopping)
        return model, model.best_iteration_ or trees

    return _trees(rows, fit, seed)


def catboost(rows: PlainRows, seed: int) -> np.ndarray:
    """CatBoost with its defaults, rate 0.05."""
    from catboost import CatBoostClassifier

    categories = [name for name, dtype in rows.columns.dtypes.items() if dtype == "category"]

    def fit(known: "_Doubled", stop: "_Doubled | None", trees: int) -> tuple[Any, int]:
        from catboost import Pool

        def pool(of: "_Doubled") -> Any:
            return Pool(of.columns, of.label, weight=of.weight, cat_features=categories)

        model = CatBoostClassifier(
            iterations=trees,
            learning_rate=0.05,
            random_seed=seed,
            boost_from_average=True,
            verbose=0,
            allow_writing_files=False,
        )
        model.fit(
            pool(known),
            eval_set=pool(stop) if stop else None,
            early_stopping_rounds=PATIENCE if stop else None,
        )
        return model, (model.get_best_iteration() + 1) if stop else trees

    return _trees(rows, fit, seed)


@dataclass(frozen=True, kw_only=True)
class _Doubled:
    columns: pd.DataFrame
    label: np.ndarray
    weight: np.ndarray


def _trees(rows: PlainRows, fit: Callable[..., tuple[Any, int]], seed: int) -> np.ndarray:
    """Fit to the training part, stopped by the validation part; then to both, with that number of trees."""
    if not len(rows.columns.columns):
        return constant(rows, seed)
    train, stop, both = (
        _doubled(rows, names, seed) for names in ([TRAIN], [VALIDATION], [TRAIN, VALIDATION])
    )
    can_stop = len(np.unique(stop.label)) == 2
    trees = fit(train, stop, MOST_TREES)[1] if can_stop else FEW_TREES
    model, _ = fit(both, None, max(trees, 1))
    return np.asarray(model.predict_proba(rows.columns[rows.part == TEST])[:, 1])


def _doubled(rows: PlainRows, parts: list[str], seed: int) -> _Doubled:
    chosen = np.flatnonzero(np.isin(rows.part, parts))
    place = np.concatenate([chosen, chosen])
    label = np.repeat([1, 0], len(chosen))
    weight = np.concatenate(
        [rows.weight[chosen] * rows.label[chosen], rows.weight[chosen] * (1 - rows.label[chosen])]
    )
    keep = weight > 0
    wanted = max(MOST_ROWS - int((keep & (label == 1)).sum()), 0)
    rate = min(1.0, wanted / max(int((keep & (label == 0)).sum()), 1))
    if rate < 1:
        keep &= (label == 1) | (np.random.default_rng(seed).random(len(label)) < rate)
        weight = np.where(label == 1, weight, weight / rate)
    return _Doubled(
        columns=rows.columns.iloc[place[keep]], label=label[keep], weight=weight[keep] / weight[keep].mean()
    )


def frozen(rows: PlainRows, _seed: int) -> np.ndarray | None:
    """Of the text's vector; with queries also of its product with the query's vector, and of their cosine."""

    def features(texts: np.ndarray, queries: np.ndarray, _fitted: list[str]) -> np.ndarray:
        vectors = np.asarray(rows.vectors(rows.texts), dtype=np.float32)
        scale = np.sqrt(vectors.shape[1])
        found = vectors[texts] * scale
        if (queries >= 0).any():
            product = vectors[texts] * np.where((queries >= 0)[:, None], vectors[queries], 0)
            found = np.hstack([found, product * scale**2, 4 * product.sum(1, keepdims=True)])
        return found

    return _logistic(rows, features, PENALTIES[FROZEN])


def tf_idf(rows: PlainRows, _seed: int) -> np.ndarray | None:
    """Of the text's characters, pairs and triples of them; with queries also of the cosine with the query."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    def features(texts: np.ndarray, queries: np.ndarray, fitted: list[str]) -> Any:
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
        vectors = vectorizer.fit(fitted).transform(rows.texts)
        found = vectors[texts]
        if (queries >= 0).any():
            cosine = np.asarray(found.multiply(vectors[np.maximum(queries, 0)]).sum(1))
            found = sparse.hstack([found, sparse.csr_matrix(4 * cosine * (queries >= 0)[:, None])]).tocsr()
        return found

    return _logistic(rows, features, PENALTIES[TF_IDF])


def _logistic(
    rows: PlainRows,
    features: Callable[[np.ndarray, np.ndarray, list[str]], Any],
    penalties: tuple[float, ...],
) -> np.ndarray | None:
    """Logistic regression on what each distinct pair of text and query gives; None where there is one pair only."""
    pairs, place = np.unique(np.stack([rows.text, rows.query]), axis=1, return_inverse=True)
    place = place.ravel()
    if pairs.shape[1] < 2:
        return None
    before = np.unique(rows.text[rows.part != TEST])
    values = features(pairs[0], pairs[1], [rows.texts[text] for text in before])
    penalty = min(penalties, key=lambda each: _loss(rows, values, place, [TRAIN], VALIDATION, each))
    return _predicted(rows, values, place, [TRAIN, VALIDATION], penalty)[place[rows.part == TEST]]


def _loss(
    rows: PlainRows, values: Any, place: np.ndarray, parts: list[str], on: str, penalty: float
) -> float:
    chosen = rows.part == on
    p = np.clip(_predicted(rows, values, place, parts, penalty)[place[chosen]], 1e-7, 1 - 1e-7)
    label = rows.label[chosen]
    loss = -(label * np.log(p) + (1 - label) * np.log1p(-p))
    return float(np.average(loss, weights=rows.weight[chosen]))


def _predicted(
    rows: PlainRows, values: Any, place: np.ndarray, parts: list[str], penalty: float
) -> np.ndarray:
    """(P,) probabilities of all pairs after a fit on some parts."""
    from sklearn.linear_model import LogisticRegression

    chosen, num_pairs = np.isin(rows.part, parts), values.shape[0]
    sums = [
        np.bincount(place[chosen], (rows.weight * each)[chosen], minlength=num_pairs)
        for each in (rows.label, 1 - rows.label)
    ]
    known = [np.flatnonzero(each > 0) for each in sums]
    weight = np.concatenate([each[pairs] for each, pairs in zip(sums, known, strict=True)])
    label = np.repeat([1, 0], [len(pairs) for pairs in known])
    # Together as much as the pairs are many: a penalty then means the same for rows and for millions of impressions.
    weight = weight * (len(np.unique(np.concatenate(known))) / weight.sum())
    solver = "lbfgs" if sparse.issparse(values) else "newton-cholesky"
    model = LogisticRegression(C=penalty, solver=solver, max_iter=1000)
    model.fit(values[np.concatenate(known)], label, sample_weight=weight)
    return np.asarray(model.predict_proba(values)[:, 1])


METHODS: Mapping[str, Callable[[PlainRows, int], np.ndarray | None]] = {
    CONSTANT: constant,
    POPULARITY: popularity,
    LIGHTGBM: lightgbm,
    CATBOOST: catboost,
    FROZEN: frozen,
    TF_IDF: tf_idf,
}


def checked_tables(
    home: Path,
    source: str,
    contracts: Mapping[str, Table],
    names: Iterable[str] = ("exposures", "items", "users"),
) -> dict[str, pd.DataFrame]:
    """A source's checked tables, as frames of the contract's columns (not those that the files are partitioned by)."""
    return {
        name: pd.read_parquet(
            current_folder(folder), columns=[column.name for column in contracts[name].columns]
        )
        for name in names
        if current(folder := home / "checked" / source / name) is not None
    }
