"""Which rows: those of a part, samples, whole query groups, batches; by blocks, so that memory holds little more.

Positives are all seen; negatives are downsampled anew each epoch. A model trained on such rows sees odds
1/sampling_rate too high; subtracting log(1/sampling_rate) from the logit is exact (King & Zeng 2001, section 4.1),
so the loss adds it and the model's own logit stays calibrated.

Of millions of rows, what validates and the query groups to learn from are samples of a fixed size, so they cost the
same memory however many rows there are. Fewer rows than that are all taken; but what validates is scored after every
epoch, and of rare positives nearly all of it would be query groups that no metric of ranking counts: of those a sample
stands for all, by weight, also in the metrics that count them.
"""

import numpy as np
import pandas as pd

from training.data.columns import Columns

BLOCK = 1 << 20  # rows looked at together
MIN_NEGATIVES = 1 << 14  # that an epoch draws, where there are so many
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
    return tabular_batches(rows, BLOCK)


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
    """All of some rows, or where there are more than `most`, about so many: whole query groups.

    Which query groups these are depends on their `query_group_id` alone.
    """
    if len(rows) <= most:
        return rows
    sampling_rate = most / len(rows)
    chosen = []
    for block in blocks(rows):
        spread = columns.at("query_group_id", block).astype(np.uint64) * SPREAD
        chosen.append(block[(spread >> np.uint64(11)).astype(np.float64) < sampling_rate * 2**53])
    return np.concatenate(chosen)


def all_positive_query_groups(
    columns: Columns, rows: np.ndarray, most: int, min_others: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to measure by: every query group with a positive, and of the others as many rows, if there are more.

    Args:
        columns: of the examples.
        rows: (k,) ascending row numbers.
        most: rows with which memory holds it; where query groups with a positive have more, all groups are sampled.
        min_others: rows of query groups without a positive, where there are so many.

    Returns:
        Ascending row numbers, and for how many rows of the k each of them stands, float32.
    """
    groups = [columns.at("query_group_id", block) for block in blocks(rows)]
    labels = [columns.at("label", block) for block in blocks(rows)]
    positive = np.unique(
        np.concatenate([group[label > 0] for group, label in zip(groups, labels, strict=True)])
    )
    has_positive = np.concatenate([np.isin(group, positive) for group in groups])
    with_positive, others = rows[has_positive], rows[~has_positive]
    if len(with_positive) > most:
        drawn = whole_query_groups(columns, rows, most)
        return drawn, np.ones(len(drawn), dtype=np.float32)
    drawn = whole_query_groups(columns, others, max(len(with_positive), min_others))
    chosen = np.concatenate([with_positive, drawn])
    stands_for = np.ones(len(chosen), dtype=np.float32)
    stands_for[len(with_positive) :] = len(others) / max(len(drawn), 1)
    order = np.argsort(chosen, kind="stable")
    return chosen[order], stands_for[order]


def positions(text_ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of text ids among ascending distinct ones; -1 stays."""
    return np.where(wanted >= 0, np.searchsorted(text_ids, wanted), -1)


def distinct_values(columns: Columns, name: str, rows: np.ndarray) -> np.ndarray:
    """Distinct values of a column of `ROW_SCHEMA` in some rows, ascending."""
    return np.unique(np.concatenate([np.unique(columns.at(name, block)) for block in blocks(rows)]))


def negative_sampling_rate(labels: np.ndarray, rows: np.ndarray, negatives_per_positive: float) -> float:
    """Fraction of the negatives to draw, so that there are about so many for each positive; of few rows all.

    Labels between 0 and 1 are not corrected for by the odds, so then all rows are drawn.
    """
    positive = negative = 0
    for block in blocks(rows):
        here = labels[block]
        positive, negative = positive + int((here > 0).sum()), negative + int((here == 0).sum())
        if ((here > 0) & (here < 1)).any():
            return 1.0
    return min(1.0, max(negatives_per_positive * positive, MIN_NEGATIVES) / max(negative, 1))


def downsample_negatives(
    labels: np.ndarray, rows: np.ndarray, sampling_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """All positives and a sample of the negatives, shuffled; of many rows, block by block."""
    return rng.permutation(
        np.concatenate([_downsample_block(labels, block, sampling_rate, rng) for block in blocks(rows)])
    )


def _downsample_block(
    labels: np.ndarray, rows: np.ndarray, sampling_rate: float, rng: np.random.Generator
) -> np.ndarray:
    positives = rows[labels[rows] > 0]
    negatives = rows[labels[rows] == 0]
    size = min(max(1, round(len(negatives) * sampling_rate)), len(negatives))
    return np.concatenate([positives, rng.choice(negatives, size=size, replace=False)])


def tabular_batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Nearly equal batches of at most `size` rows."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def text_batches(
    rows: np.ndarray, text_id: np.ndarray, *, num_texts: int, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of few distinct candidate texts: each text's rows stay together, texts are shuffled.

    Args:
        rows: (N,) row numbers.
        text_id: candidate text of every row of the data.
        num_texts: most distinct texts in a batch.
        size: rows after which a batch is full; a text with more rows is cut.
        rng: source of the shuffle.
    """
    distinct, of_text = np.unique(text_id[rows], return_inverse=True)
    turn = rng.permutation(len(distinct))[of_text]
    order = np.argsort(turn, kind="stable")
    counts = np.bincount(turn, minlength=len(distinct))
    batches: list[np.ndarray] = []
    start = texts = filled = 0
    for count in counts:
        if texts and (texts == num_texts or filled + count > size):
            batches.append(rows[order[start : start + filled]])
            start, texts, filled = start + filled, 0, 0
        texts, filled = texts + 1, filled + int(count)
    batches.append(rows[order[start : start + filled]])
    return [part for batch in batches for part in tabular_batches(batch, size)]
