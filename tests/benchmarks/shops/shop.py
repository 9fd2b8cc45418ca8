"""What a shop of this benchmark is: files as a shop has them, and a `source.toml` of a few lines."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

DECLARED = "source.toml"
SOURCES = Path(__file__).parent / "sources"
BEST = "attainable.parquet"
"""Beside a shop's files where the truth is known: `exposure_id`, `probability`. Not declared: the job never sees it."""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """One shop.

    Attributes:
        name: of its source, its folder and its results.
        about: what is shown to whom, what decides, and how it is split: a paragraph of the page.
        data: the folder below SHARED_DATA that it is made from; None: none.
        package: the installed package that it is made from; None: none.
        write: writes the shop's files and `source.toml`; takes the data's folder, the shop's and whether to be quick.
        pairs: (W,), (W,) places of winners and losers among a frame of exposures: which of two is right is asked too.
    """

    name: str
    about: str
    data: str | None = None
    package: str | None = None
    write: Callable[[Path, Path, bool], None]
    pairs: Callable[[pd.DataFrame], tuple[np.ndarray, np.ndarray]] | None = None

    def missing(self, data: Path) -> str | None:
        """Why the shop cannot be made here, or None."""
        if self.data is not None and not (data / self.data).is_dir():
            return f"{data / self.data} does not exist; set SHARED_DATA or --data"
        if self.package is not None and find_spec(self.package) is None:
            return f"the package {self.package} is not installed; make install brings it"
        return None


def write_files(folder: Path, name: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """A shop's folder, made anew: a Parquet file for each table, and the declaration, which is kept in `sources`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for table, frame in tables.items():
        frame.to_parquet(folder / f"{table}.parquet", index=False)
    shutil.copy(SOURCES / f"{name}.toml", folder / DECLARED)
