"""Arrays that lie in a file instead of memory: written once from front to back, then read by place.

The file has no name: its space comes back when the process ends, however it ends. Reading maps it; `take` and
`release` let the mapped pages go, so what a process holds does not grow with what it has read (the operating
system keeps them in its cache as long as it has room).
"""

import mmap
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

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
        self._file: IO[bytes] | None = self._tried(self._open)
        self._map: mmap.mmap | None = None
        self._length = 0

    def append(self, values: np.ndarray) -> None:
        """Write more entries, (n, *shape).

        Raises:
            TransientError: the disk is full.
        """
        plain = np.ascontiguousarray(values, dtype=self.dtype).reshape(-1).view(np.uint8)
        assert self._file is not None, "it has been read"
        self._tried(self._file.write, plain)
        self._length += len(values)

    @property
    def values(self) -> np.ndarray:
        """All entries, read-only; nothing can be appended any more."""
        if self._file is not None:
            size = self._tried(self._file.seek, 0, 1)
            self._tried(self._file.flush)
            if size:
                self._map = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
                self._values = np.frombuffer(self._map, self.dtype).reshape(-1, *self.shape)
            else:  # no entries, or entries of no width
                self._values = np.zeros((self._length, *self.shape), self.dtype)
            self._file.close()
            self._file = None
        return self._values

    def take(self, places: np.ndarray, column: int | None = None) -> np.ndarray:
        """A copy of the entries at some places, or of one of their columns."""
        shape = self.shape if column is None else ()
        found = np.empty((len(places), *shape), self.dtype)
        order = np.argsort(places)  # neighbours share pages
        for start in range(0, len(order), SCATTERED):
            chosen = order[start : start + SCATTERED]
            at = places[chosen]
            found[chosen] = self.values[at] if column is None else self.values[at, column]
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

    def _open(self) -> IO[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self.folder)

    def _tried(self, act: Any, *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except OSError as error:
            raise TransientError(
                f"the examples' columns cannot be written to {self.folder} ({error}); free disk space there, "
                "or name a folder with more in TMPDIR or --work, and run again"
            ) from error
