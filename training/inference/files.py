"""Scores of a shop's own rows, a file or an examples folder, written to a file, row by row in the same order.

A file is Parquet or CSV with the bundle's feature columns, `text` (what the candidate says) and, if there is one,
`query`. It has no column for what a user did before, so f looks at the words alone; an examples folder has histories.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from expectations.contracts.bundle import MANIFEST
from expectations.contracts.examples import ROWS
from expectations.errors import BundleError, DataError, SchemaError, SettingError, TransientError
from expectations.storage.atomic import replacing
from training.data.dataset import read_examples
from training.data.split import TEST
from training.inference.batch_scoring import Scores
from training.inference.predictor import Predictor
from training.runtime.device import first_device

BLOCK = 1 << 12  # rows of a file scored at once
SCORES = ("probability", "text_logit", "tabular_logit")
KEYS = ("exposure_id", "user_id", "item_id", "event_timestamp")  # of an examples folder's rows
TEXT, QUERY = "text", "query"
SUFFIXES = (".parquet", ".csv")


def predict(bundle: Path, rows: Path, out: Path) -> int:
    """Score rows by a bundle.

    Args:
        bundle: the bundle's folder.
        rows: a Parquet or CSV file, or an examples folder, all of whose rows are scored.
        out: Parquet or CSV file to write: probability, text_logit (f) and tabular_logit (g), beside the columns of the
            file that the model does not read, or the keys of the examples.

    Returns:
        How many rows were scored.

    Raises:
        BundleError: the bundle is incomplete or altered.
        SettingError: there is no such input, or a file is neither Parquet nor CSV.
        SchemaError: a column is missing or of another kind. DataError: a row cannot be scored.
        TransientError: the scores could not be written.
    """
    _check_suffix(out, "--out")
    if not rows.exists():
        raise SettingError(f"{rows} does not exist; name a Parquet or CSV file, or an examples folder")
    predictor = Predictor.load(bundle, first_device())
    if rows.is_dir():
        if (rows / MANIFEST).exists():
            raise SettingError(f"{rows} is a bundle; name a Parquet or CSV file, or an examples folder")
        scored = iter([_scored_examples(predictor, rows)])
    else:
        _check_suffix(rows, "--input")
        scored = _scored_file(predictor, rows)
    return _write(out, scored)


def _scored_examples(predictor: Predictor, folder: Path) -> pa.Table:
    data = read_examples(folder, part=TEST)
    try:
        scores = predictor.score_examples(data)
    except BundleError as error:
        raise SchemaError(f"{folder}: {error}") from error
    return _with_scores(pq.read_table(folder / ROWS, columns=list(KEYS)), scores)


def _scored_file(predictor: Predictor, path: Path) -> Iterator[pa.Table]:
    manifest, first = predictor.manifest, 0
    for block in _blocks(path):
        frame = block.to_pandas()
        if first == 0:
            _require(path, frame.columns, [*manifest.numeric, *manifest.categorical, TEXT])
        features = {name: _numbers(path, frame[name], first) for name in manifest.numeric}
        features |= {name: _strings(path, frame[name]) for name in manifest.categorical}
        texts = _strings(path, frame[TEXT])
        absent = np.flatnonzero(texts.isna() | (texts == ""))
        if len(absent):
            raise DataError(
                f"{path}: column {TEXT} is empty in {len(absent)} rows, the first of them row {first + absent[0]} "
                "(counted from 0); say what each candidate says"
            )
        asked = _strings(path, frame[QUERY]) if QUERY in frame else pd.Series([None] * len(frame))
        queries = [query or None for query in asked.astype(object).where(asked.notna(), None)]
        scores = predictor.score(pd.DataFrame(features), texts=texts.tolist(), queries=queries)
        read = {*features, TEXT, QUERY, *SCORES}
        yield _with_scores(block.select([name for name in frame if name not in read]), scores)
        first += len(frame)


def _blocks(path: Path) -> Iterator[pa.Table]:
    """A file's rows, at most BLOCK at once; all of a CSV as strings."""
    try:
        if path.suffix == ".csv":
            with pd.read_csv(
                path, dtype=str, keep_default_na=False, na_values=[""], chunksize=BLOCK
            ) as reader:
                for frame in reader:
                    schema = pa.schema([(name, pa.string()) for name in frame.columns])
                    yield pa.Table.from_pandas(frame, schema, preserve_index=False)
        else:
            with pq.ParquetFile(path) as file:
                yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(batch_size=BLOCK))
    except (
        OSError,
        pa.ArrowInvalid,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
    ) as error:
        raise SchemaError(f"{path} cannot be read ({error}); save it as UTF-8 CSV or as Parquet") from error


def _require(path: Path, there: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        raise SchemaError(
            f"{path}: {len(missing)} of the {len(names)} columns that the bundle reads are missing: "
            f"{', '.join(missing)}; add them (what is unknown is left empty), or score an examples folder"
        )


def _numbers(path: Path, column: pd.Series, first: int) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = np.flatnonzero(numbers.isna() & column.notna())
    if len(bad):
        raise DataError(
            f"{path}: column {column.name} holds no number in {len(bad)} rows, the first of them row "
            f"{first + bad[0]} (counted from 0): {column.iloc[bad[0]]!r}; correct it, or leave it empty where unknown"
        )
    return numbers.astype(np.float32)


def _strings(path: Path, column: pd.Series) -> pd.Series:
    """A column as strings, None where unknown; whole numbers without a point, as the examples hold them."""
    if pd.api.types.is_float_dtype(column) and not (column.dropna() % 1).any():
        column = column.astype("Int64")
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in ("string", "integer", "categorical", "boolean", "empty"):
        raise SchemaError(f"{path}: column {column.name} holds {kind}, not strings; save it as strings")
    return column.astype("string").astype(object).where(column.notna(), None)


def _with_scores(rows: pa.Table, scores: Scores) -> pa.Table:
    for name in SCORES:
        rows = rows.append_column(name, pa.array(getattr(scores, name), pa.float32()))
    return rows


def _check_suffix(path: Path, option: str) -> None:
    if path.suffix not in SUFFIXES:
        raise SettingError(
            f"{option} {path} is neither .parquet nor .csv; name a file that ends in one of them"
        )


def _write(out: Path, tables: Iterator[pa.Table]) -> int:
    """Write tables one after the other, whole or not at all; how many rows there were."""
    try:
        with replacing(out) as temporary:
            count = _write_all(temporary, out.suffix, tables)
    except OSError as error:
        raise TransientError(f"{out} cannot be written ({error}); free disk space and run again") from error
    return count


def _write_all(path: Path, suffix: str, tables: Iterator[pa.Table]) -> int:
    first = next(tables, None)
    if first is None or not len(first):
        raise DataError("the input has no rows; nothing was written")
    count, kind = 0, csv.CSVWriter if suffix == ".csv" else pq.ParquetWriter
    with kind(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)
            count += len(table)
    return count
