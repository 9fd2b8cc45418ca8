"""Fitted transforms: what the training part says of each feature. Saved with the bundle, never fitted again.

Numeric features are encoded piecewise linearly between quantiles (Gorishniy et al. 2022, "On Embeddings for
Numerical Features in Tabular Deep Learning", section 3.2). Counts are mostly one value (0), so a value that
fills a whole bin is set apart and the quantiles are those of the rest.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expectations.errors import BundleError, SettingError
from expectations.storage.atomic import read_json, write_json

ARRAYS = (
    "bin_edges",
    "centre",
    "scale",
    "typical",
    "unknown_fraction",
)  # attributes of one row a numeric feature


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """Statistics of the training part.

    Attributes:
        numeric: names of the numeric features.
        bin_edges: (F, bins + 1) ascending edges of each feature's quantile bins; the first and last clip it.
        centre, scale: (F,) mean and deviation of sign(x)·log(1 + |x|).
        typical: (F,) median; NaN where most values are unknown.
        unknown_fraction: (F,) of the values.
        categorical: names of the categorical features.
        category_vocabularies: categories of each, most frequent first; code 0 is "unknown".
    """

    numeric: tuple[str, ...]
    bin_edges: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    typical: np.ndarray
    unknown_fraction: np.ndarray
    categorical: tuple[str, ...]
    category_vocabularies: Mapping[str, tuple[str, ...]]

    def numeric_features(self, rows: pd.DataFrame) -> np.ndarray:
        """Numeric features, clipped to the range of the training part; NaN stays, infinite is NaN.

        Returns:
            (rows, F) float32 in the order of `numeric`.

        Raises:
            BundleError: a column is missing or not numeric.
        """
        _require(rows.columns, self.numeric)
        try:
            raw = rows[list(self.numeric)].to_numpy(np.float32)
        except (TypeError, ValueError) as error:
            raise BundleError(
                f"a numeric feature does not hold numbers ({error}); correct its column"
            ) from error
        return self.clipped(np.where(np.isinf(raw), np.float32(np.nan), raw))

    def clipped(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers (k, F) in the order of `numeric`, clipped to the range of the training part."""
        return np.clip(numbers, self.bin_edges[:, 0], self.bin_edges[:, -1]).astype(np.float32)

    def categorical_features(self, rows: pd.DataFrame) -> np.ndarray:
        """Categories as (rows, C) int64 codes in the order of `categorical`; 0 is unknown.

        Raises:
            BundleError: a column is missing.
        """
        _require(rows.columns, self.categorical)
        columns = [self.category_codes(name, rows[name]) for name in self.categorical]
        return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), dtype=np.int64)

    def require(self, there: Collection[str]) -> None:
        """Check that every feature is there.

        Raises:
            BundleError: one is missing.
        """
        _require(there, (*self.numeric, *self.categorical))

    def with_prefix(self, prefix: str) -> tuple["Transforms", list[int], list[int]]:
        """The part of the features whose names begin so, and their places among numeric and categorical."""
        numeric = [place for place, name in enumerate(self.numeric) if name.startswith(prefix)]
        categorical = [place for place, name in enumerate(self.categorical) if name.startswith(prefix)]
        names = tuple(self.categorical[place] for place in categorical)
        part = replace(
            self,
            numeric=tuple(self.numeric[place] for place in numeric),
            categorical=names,
            category_vocabularies={name: self.category_vocabularies[name] for name in names},
            **{name: getattr(self, name)[numeric] for name in ARRAYS},
        )
        return part, numeric, categorical

    def category_codes(self, name: str, categories: pd.Series | np.ndarray) -> np.ndarray:
        """Codes of categories of a categorical feature, int64."""
        return self._vocabularies[name].get_indexer(pd.Index(categories, dtype=object)) + 1

    @cached_property
    def _vocabularies(self) -> dict[str, "pd.Index[str]"]:
        return {
            name: pd.Index(list(found), dtype=object) for name, found in self.category_vocabularies.items()
        }

    def write(self, path: Path) -> None:
        """Write as JSON; NaN as null."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        write_json(path, values | {name: _plain(values[name]) for name in ARRAYS})

    @classmethod
    def read(cls, path: Path) -> "Transforms":
        """Read what `write` wrote.

        Raises:
            BundleError: the file does not hold transforms.
        """
        values = read_json(path)
        try:
            arrays = {name: np.array(values[name], dtype=np.float32) for name in ARRAYS}
            arrays["bin_edges"] = arrays["bin_edges"].reshape(len(values["numeric"]), -1)
            return cls(
                numeric=tuple(values["numeric"]),
                categorical=tuple(values["categorical"]),
                category_vocabularies={
                    key: tuple(found) for key, found in values["category_vocabularies"].items()
                },
                **arrays,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path} does not hold transforms ({error}); train again") from error


def fit_transforms(
    rows: Mapping[str, pd.Series] | pd.DataFrame,
    *,
    numeric: Sequence[str],
    categorical: Sequence[str],
    bins: int,
) -> Transforms:
    """Fit transforms on the rows of the training part, one column after the other.

    Edge cases: infinite values are unknown, an all-NaN column has no bins and only its "unknown" flag speaks,
    a constant column says nothing.

    Raises:
        SettingError: there is no feature at all.
    """
    if not numeric and not categorical:
        raise SettingError(
            "examples: the schema names no feature; declare at least one numeric or categorical"
        )
    bin_edges, others = [], []
    for name in numeric:
        column = finite(rows[name].to_numpy(np.float64))
        bin_edges.append(_quantile_bin_edges(column, bins))
        log = _signed_log(column[~np.isnan(column)])
        centre, scale = (log.mean(), max(log.std(), 1e-3)) if log.size else (0.0, 1.0)
        others.append((centre, scale, _typical(column), np.isnan(column).mean()))
    centres, scales, typical, unknown_fraction = np.array(others, dtype=np.float32).reshape(-1, 4).T
    return Transforms(
        numeric=tuple(numeric),
        bin_edges=np.array(bin_edges, dtype=np.float32).reshape(-1, bins + 1),
        centre=centres,
        scale=scales,
        typical=typical,
        unknown_fraction=unknown_fraction,
        categorical=tuple(categorical),
        category_vocabularies={
            name: tuple(str(category) for category in rows[name].value_counts(sort=True).index)
            for name in categorical
        },
    )


def finite(column: np.ndarray) -> np.ndarray:
    """The column with NaN for infinite values."""
    return np.where(np.isinf(column), np.nan, column)


def _quantile_bin_edges(column: np.ndarray, bins: int) -> np.ndarray:
    known = column[~np.isnan(column)]
    if not known.size:
        return np.zeros(bins + 1)
    values, counts = np.unique(known, return_counts=True)
    frequent = values[counts > len(known) / bins]
    rest = known[~np.isin(known, frequent)]
    num_bins = max(bins - len(frequent), 1)
    quantiles = np.quantile(rest, np.linspace(0, 1, num_bins + 1)) if rest.size else np.zeros(0)
    edges = np.unique(np.concatenate([frequent, quantiles, values[[0, -1]]]))
    if len(edges) > bins + 1:
        edges = np.quantile(edges, np.linspace(0, 1, bins + 1), method="nearest")
    # Bins of no width, at the end, encode nothing.
    return np.concatenate([edges, np.full(bins + 1 - len(edges), edges[-1])])


def _typical(column: np.ndarray) -> float:
    unknown = np.isnan(column)
    return float("nan") if unknown.mean() > 0.5 else float(np.median(column[~unknown]))


def _signed_log(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))


def _require(there: Collection[str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        raise BundleError(
            f"feature column {missing[0]} is missing; the model was trained with it, provide it"
        )


def _plain(array: np.ndarray) -> Any:
    values = array.astype(object)
    values[np.isnan(array)] = None
    return values.tolist()
