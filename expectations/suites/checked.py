"""Writing what a validation decided: rows that go on, rows that do not."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.schema import QUARANTINE_SCHEMA, Table
from expectations.storage.atomic import replacing
from expectations.suites.scan import Scan

QUARANTINE_FILE = "validation.parquet"
BATCH_ROWS = 65_536


def write_checked(
    source: Path, files: Sequence[Path], contract: Table, broken: Mapping[str, pa.Array], target: Path
) -> int:
    """Write the rows that passed, file by file in the same layout.

    A file without a broken row is linked, not written again: landed files never change. A month
    of which no row is left has no file, unless the whole table would have none.
    `broken` has the numbers of the rows to leave out by file name, `target` is an empty folder.

    Returns:
        Rows written.
    """
    num_rows = 0
    for file in files:
        numbers = broken.get(str(file))
        left = pq.read_metadata(file).num_rows - (0 if numbers is None else len(numbers))
        if left == 0:
            continue
        path = target / file.relative_to(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        if numbers is None:
            _link(file, path)
        else:
            _filter(file, numbers, contract.schema, path)
        num_rows += left
    if not num_rows:
        path = target / files[0].relative_to(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(contract.schema.empty_table(), path)
    return num_rows


def write_quarantine(scan: Scan, num_broken: int, folder: Path) -> None:
    """Replace the quarantine of a table's last validation; without broken rows there is none."""
    path = folder / QUARANTINE_FILE
    if not num_broken:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary, pq.ParquetWriter(temporary, QUARANTINE_SCHEMA) as writer:
        for batch in scan.quarantine():
            writer.write_batch(batch.cast(QUARANTINE_SCHEMA))


def _link(file: Path, path: Path) -> None:
    try:
        os.link(file, path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(file, path)


def _filter(file: Path, numbers: pa.Array, schema: pa.Schema, path: Path) -> None:
    broken = numbers.to_numpy()
    start = 0
    with pq.ParquetFile(file) as reader, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader.iter_batches(batch_size=BATCH_ROWS, columns=schema.names):
            keep = ~np.isin(np.arange(start, start + batch.num_rows), broken)
            start += batch.num_rows
            valid = pa.Table.from_batches([batch]).filter(pa.array(keep))
            writer.write_table(valid.select(schema.names).cast(schema))
