"""A shop's Parquet and CSV files: found and told apart."""

import glob
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from expectations.errors import SchemaError
from expectations.storage.hashes import file_hash

_ENDINGS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
}
_HASHED_BYTES = 256 * 2**20  # larger files are told apart by size and time


def find_files(table: str, location: str) -> tuple[str, list[Path]]:
    """The files of a location (an absolute path or a glob), and their kind: "parquet" or "csv".

    Raises:
        SchemaError: nothing is there, or the files are of unknown or of several kinds.
    """
    place = Path(location)
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.is_file() and _kind(path))
    else:
        base = next(parent for parent in place.parents if parent.is_dir())
        pattern = str(place.relative_to(base))  # brackets in folders that are there are characters
        matches = (base / name for name in glob.glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207
        files = sorted(path for path in matches if path.is_file())
    if not files:
        raise SchemaError(
            f"{table}: {location} has no Parquet or CSV file; correct location in [tables.{table}]"
        )
    kinds = {_kind(path) for path in files}
    if len(kinds) > 1 or None in kinds:
        odd = next((path for path in files if _kind(path) is None), files[0])
        raise SchemaError(
            f"{table}: {location} must hold only .parquet or only .csv (or .csv.gz) files, but has {odd.name}"
        )
    empty = [path for path in files if path.stat().st_size == 0]
    if empty:
        raise SchemaError(f"{table}: {empty[0]} is empty (0 bytes); bring the file again")
    return str(kinds.pop()), files


def identity(files: Sequence[Path]) -> str:
    """What tells the content of files apart: names below their common folder, and hashes.

    A file above 256 MiB is told apart by its size and time of change.
    """
    digest = hashlib.sha256()
    root = os.path.commonpath([path.parent for path in files])
    for path in files:
        status = path.stat()
        large = f"{status.st_size} bytes, changed {status.st_mtime_ns}"
        mark = large if status.st_size > _HASHED_BYTES else file_hash(path)
        digest.update(f"{path.relative_to(root)}\0{mark}\0".encode())
    return digest.hexdigest()


def literal_path(path: Path) -> str:
    """A path for DuckDB, which takes brackets and stars for a pattern."""
    return glob.escape(str(path))


def _kind(path: Path) -> str | None:
    if path.name.startswith((".", "_")):
        return None
    name = path.name.lower()
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
