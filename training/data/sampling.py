"""Row numbers: those of a part, drawn ones, whole lists; by blocks, so that memory holds little beside them.

What millions of rows are measured on or learn lists from is a sample of a fixed size, so it costs the same memory
however many rows there are. Fewer rows than that are all taken.
"""

import numpy as np
import pandas as pd

from training.data.columns import Columns

BLOCK = 1 << 20  # rows looked at together
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: neighbouring numbers end far apart


def rows_of(part: "pd.Categorical[str]", name: str) -> np.ndarray:
    """Numbers of the rows of a part, ascending; int32 where that is enough."""
    codes = np.asarray(part.codes)
    code = part.categories.get_loc(name)
    kind = np.int32 if len(codes) <= np.iinfo(np.int32).max else np.int64
    found = np.empty(np.count_nonzero(codes == code), dtype=kind)
    filled = 0
    for start in range(0, len(codes), BLOCK):
        here = np.flatnonzero(codes[start : start + BLOCK] == code)
        found[filled : filled + len(here)] = here + start
        filled += len(here)
    return found


def blocks(rows: np.ndarray) -> list[np.ndarray]:
    """Nearly equal blocks of some rows, at least one."""
    return np.array_split(rows, max(1, -(-len(rows) // BLOCK)))


def sampled(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """All of some ascending rows, or where there are more, `most` drawn ones, ascending."""
    if len(rows) <= most:
        return rows
    rng, parts = np.random.default_rng(seed), blocks(rows)
    counts = np.diff(np.linspace(0, most, len(parts) + 1).astype(int))
    drawn = [
        np.sort(rng.choice(part, count, replace=False)) for part, count in zip(parts, counts, strict=True)
    ]
    return np.concatenate(drawn)


def whole_query_groups(columns: Columns, rows: np.ndarray, most: int) -> np.ndarray:
    """All of some rows, or where there are more than `most`, those of about so many rows' whole lists.

    Which lists these are depends on their `query_group_id` alone.
    """
    if len(rows) <= most:
        return rows
    share = most / len(rows)
    kept = []
    for block in blocks(rows):
        spread = columns.at("query_group_id", block).astype(np.uint64) * SPREAD
        kept.append(block[(spread >> np.uint64(11)).astype(np.float64) < share * 2**53])
    return np.concatenate(kept)
