"""Arrays that lie in a file instead of memory: written once from front to back, then read by place.

The file has no name: its space comes back when the process ends, however it ends. Reading maps it; `take` and
`release` let the mapped pages go, so what a process holds does not grow with what it has read (the operating
system keeps them in its cache as long as it has room).

By hand, as a memory-mapped Arrow file grows resident by all that was read (of 2 million rows of 24 bytes, 24 bytes a
row instead of 0.3; 49 and 50 times as slow with `Table.take`), and its columns lie in parts, one a record batch.
"""

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from expectations.errors import TransientError

BLOCK = 1 << 17  # entries copied at once
SCATTERED = 512  # entries taken before their pages are let go: each may lie on pages of its own


class DiskArray:
    """An array on disk.

    Args:
        folder: where its file lies; None: the system's folder for temporary files.
        dtype: of its values.
        shape: of one entry: () for a column, (F,) for rows of F numbers.
    """

    def __init__(self, folder: Path | None, dtype: npt.DTypeLike, shape: Sequence[int] = ()) -> None:
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)
        self.folder = folder or Path(tempfile.gettempdir())
        self._map: mmap.mmap | None = None
        self._length = 0
        with self._room():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115

    def append(self, values: np.ndarray) -> None:
        """Write more entries, (n, *shape), before any is read.

        Raises:
            TransientError: the disk is full.
        """
        with self._room():
            self._file.write(np.ascontiguousarray(values, dtype=self.dtype).reshape(-1).view(np.uint8).data)
        self._length += len(values)

    @cached_property
    def values(self) -> np.ndarray:
        """All entries, read-only; nothing can be appended any more."""
        with self._room(), self._file as file:
            file.flush()
            if not file.tell():  # no entries, or entries of no width
                return np.zeros((self._length, *self.shape), self.dtype)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, self.dtype).reshape(-1, *self.shape)

    def take(self, places: np.ndarray, column: int | None = None) -> np.ndarray:
        """A copy of the entries at some places, or of one of their columns."""
        values = self.values if column is None else self.values[:, column]
        found = np.empty((len(places), *values.shape[1:]), self.dtype)
        order = np.argsort(places)  # neighbours share pages
        for start in range(0, len(order), SCATTERED):
            chosen = order[start : start + SCATTERED]
            found[chosen] = values[places[chosen]]
            self.release()
        return found

    def release(self) -> None:
        """Let go the pages that were read."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def only(self, places: np.ndarray) -> "DiskArray":
        """The entries at some places, on disk as well."""
        other = DiskArray(self.folder, self.dtype, self.shape)
        for start in range(0, len(places), BLOCK):
            other.append(self.take(places[start : start + BLOCK]))
        return other

    def __len__(self) -> int:
        return len(self.values)

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"the examples' columns cannot be written to {self.folder} ({error}); free disk space there, "
                "or name a folder with more in TMPDIR or --work, and run again"
            ) from error
