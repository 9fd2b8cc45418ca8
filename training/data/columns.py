"""The columns of rows.parquet, read once by row groups and kept compact on disk.

Numbers are float32 and lie row by row, as the networks read them; strings are dictionary-encoded. So
memory holds distinct strings and one block of rows, however many rows there are.

Shapes: N rows, k of them chosen, F numeric features, C categorical features.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expectations.contracts.examples import ROW_SCHEMA
from expectations.errors import SchemaError
from training.data.disk_arrays import DiskArray

BLOCK = 1 << 17  # rows read at once
UNUSED = "exposure_id"  # another string in every row, which nothing asks for


class Columns:
    """The features of rows as matrices, and every column by name.

    Args:
        path: a Parquet file with the columns of `ROW_SCHEMA`.
        numeric: columns that are numbers; null and NaN are unknown, and so are infinite ones.
        categorical: columns that are strings; null is unknown.
        folder: where the arrays lie; None: the system's folder for temporary files.

    Raises:
        SchemaError: a column is missing, or its type is of another kind.
        TransientError: the disk is full.
    """

    def __init__(
        self, path: Path, *, numeric: Sequence[str], categorical: Sequence[str], folder: Path | None = None
    ) -> None:
        self.path, self.numeric, self.categorical = path, tuple(numeric), tuple(categorical)
        self.num_infinite = np.zeros(len(self.numeric), dtype=np.int64)
        self._numeric = DiskArray(folder, np.float32, (len(self.numeric),))
        self._categorical = DiskArray(folder, np.int32, (len(self.categorical),))
        self._others: dict[str, DiskArray] = {}
        self._categories = {name: _Categories() for name in self.categorical}
        for field in ROW_SCHEMA:
            if field.name != UNUSED:
                text = pa.types.is_string(field.type)
                self._others[field.name] = DiskArray(folder, np.int32 if text else _dtype(field.type))
                self._categories |= {field.name: _Categories()} if text else {}
        with pq.ParquetFile(path, pre_buffer=False) as file:  # a buffer would hold all that was read
            self.names = (*self._others, *self.numeric, *self.categorical)
            missing = [name for name in self.names if name not in file.schema_arrow.names]
            if missing:
                raise SchemaError(f"{path}: column {missing[0]} is missing; build the examples again")
            for block in file.iter_batches(batch_size=BLOCK, columns=self.names):
                self._append(block)
        pa.default_memory_pool().release_unused()

    def _append(self, block: pa.RecordBatch) -> None:
        numbers = self._stacked(block, self.numeric, pa.float32())
        infinite = np.isinf(numbers)
        self.num_infinite += infinite.sum(0)
        numbers[infinite] = np.nan
        self._numeric.append(numbers)
        self._categorical.append(self._stacked(block, self.categorical, pa.string()))
        for name, array in self._others.items():
            array.append(self._values(block, name, ROW_SCHEMA.field(name).type))

    def _stacked(self, block: pa.RecordBatch, names: Sequence[str], kind: pa.DataType) -> np.ndarray:
        found = [self._values(block, name, kind) for name in names]
        return np.array(found).reshape(len(names), block.num_rows).T

    def _values(self, block: pa.RecordBatch, name: str, kind: pa.DataType) -> np.ndarray:
        column = self._cast(block, name, kind)
        if pa.types.is_string(kind):
            return self._categories[name].encode(column)
        known = column.fill_null(-1) if pa.types.is_integer(kind) else column
        return known.to_numpy(zero_copy_only=False)

    def _cast(self, block: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
        column = block.column(name)
        # Numbers and strings are not read as one another, though Arrow could parse them.
        text = pa.types.is_string(kind)
        if text or not _is_text(column.type):
            try:
                return column.cast(kind, safe=not pa.types.is_floating(kind))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                pass
        raise SchemaError(
            f"{self.path}: column {name} holds {column.type} that cannot be read as {kind}; correct its type in "
            "the source and build the examples again"
        )

    def __len__(self) -> int:
        return len(self._numeric)

    def numeric_features(self, rows: np.ndarray) -> np.ndarray:
        """Numeric features of some rows, (k, F) float32, NaN where unknown."""
        return self._numeric.take(rows)

    def categorical_features(self, rows: np.ndarray) -> np.ndarray:
        """Categorical features of some rows, (k, C) int32: codes among `categories`, -1 where unknown."""
        return self._categorical.take(rows)

    def categories(self, name: str) -> np.ndarray:
        """Distinct strings of a column in order of first appearance, and None at the end, at code -1."""
        return self._categories[name].all()

    def __getitem__(self, name: str) -> np.ndarray:
        """All of a column of `ROW_SCHEMA`, (N,), read-only and on disk; of strings, codes among `categories`."""
        return self._others[name].values

    def at(self, name: str, rows: np.ndarray) -> np.ndarray:
        """A column of `ROW_SCHEMA` at some rows, (k,), a copy."""
        return self._others[name].take(rows)

    def release(self) -> None:
        """Let go the pages of columns read by name."""
        for array in self._others.values():
            array.release()

    def only(self, rows: np.ndarray) -> "Columns":
        """Some rows' columns, on disk as well."""
        other = copy.copy(self)
        other._numeric, other._categorical = self._numeric.only(rows), self._categorical.only(rows)
        other._others = {name: array.only(rows) for name, array in self._others.items()}
        return other

    def of(self, rows: np.ndarray | slice) -> "SomeRows":
        """The columns of some rows."""
        return SomeRows(self, rows)

    def series(self, name: str, rows: np.ndarray | slice) -> pd.Series:
        """A column of some rows: float32, strings, or as `ROW_SCHEMA` says; a slice of numbers is not copied."""
        if name in self.numeric:
            array, place = self._numeric, self.numeric.index(name)
        elif name in self.categorical:
            array, place = self._categorical, self.categorical.index(name)
        else:
            array, place = self._others[name], None
        if isinstance(rows, slice):
            values = (array.values if place is None else array.values[:, place])[rows]
            array.release()
        else:
            values = array.take(rows, place)
        return pd.Series(self.categories(name)[values] if name in self._categories else values, copy=False)


class SomeRows(Mapping[str, pd.Series]):
    """The columns of some rows, each read when it is asked for."""

    def __init__(self, columns: Columns, rows: np.ndarray | slice) -> None:
        self.columns, self.rows = columns, rows

    def __getitem__(self, name: str) -> pd.Series:
        return self.columns.series(name, self.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.names)

    def __len__(self) -> int:
        return len(self.columns.names)


class _Categories:
    """Distinct strings, each with its code."""

    def __init__(self) -> None:
        self._known = pa.array([], pa.string())

    def encode(self, column: pa.Array) -> np.ndarray:
        """Codes of strings, new ones at the end; -1 for null."""
        encoded = column.dictionary_encode()
        known = pc.index_in(encoded.dictionary, value_set=self._known)
        if known.null_count:
            new = encoded.dictionary.filter(known.is_null())
            self._known = pa.concat_arrays([self._known, new])
            known = pc.index_in(encoded.dictionary, value_set=self._known)
        code = np.append(known.to_numpy(zero_copy_only=False).astype(np.int32), np.int32(-1))
        return code[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    def all(self) -> np.ndarray:
        """The strings, and None at the end."""
        return np.append(self._known.to_numpy(zero_copy_only=False).astype(object), [None])


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_large_string(inner)


def _dtype(kind: pa.DataType) -> np.dtype:
    return np.dtype("datetime64[us]") if pa.types.is_timestamp(kind) else np.dtype(kind.to_pandas_dtype())
