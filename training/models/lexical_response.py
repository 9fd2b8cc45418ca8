"""The lexical path of f: what the characters of a candidate's text say, and those that it shares with a query.

A language model knows words by its own pieces. A brand, a code, a dialect, or a language that it never read comes to a
few unknown ones, and a text of those to nothing. Character n-grams know nothing and miss nothing: so f has, beside what
the language model says, a linear response to their TF-IDF weights (Salton & Buckley 1988, "Term-weighting approaches
in automatic text retrieval"), as a wide part beside a deep one (Cheng et al. 2016, "Wide & Deep Learning"), and to the
cosine similarity of text and query. They are hashed (Weinberger et al. 2009, "Feature Hashing"), so a bundle holds two
arrays and no vocabulary, and a text's n-grams are the same for every model: a process counts them once.

The regression is scikit-learn's; its penalty is chosen by the validation part. What the path is worth beside the
others, stacking says.

Shapes: P distinct (candidate, query) pairs, X hashed n-grams.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

HASHED = 1 << 18
NGRAMS = (1, 3)  # characters, within words
MAX_CHARACTERS = 2000  # of a text that are looked at
SIMILARITY_INPUT = 4.0  # times the cosine, as it stands for all n-grams that are shared
MEMORY = 50_000  # texts whose n-grams are kept: some 50 MiB
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # scikit-learn's C, strong to weak

_hashing = HashingVectorizer(
    analyzer="char_wb", ngram_range=NGRAMS, n_features=HASHED, alternate_sign=False, norm=None
)


class LexicalResponse(nn.Module):
    """Logit of (candidate, query) pairs, linear in their TF-IDF weights; 0 until it is fitted.

    Attributes:
        idf: (X,) inverse document frequency of each n-gram.
        weight: (X,) what each adds to the logit.
        similarity: what the cosine of text and query adds.
    """

    idf: Tensor
    weight: Tensor
    similarity: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("idf", torch.zeros(HASHED))
        self.register_buffer("weight", torch.zeros(HASHED))
        self.register_buffer("similarity", torch.zeros(()))

    def logits(self, texts: Sequence[str], queries: Sequence[str | None]) -> Tensor:
        """Logits (P,) of pairs of a text and a query, or None."""
        if not self.idf.any():
            return torch.zeros(len(texts), device=self.idf.device)
        text_PX, cosine_P = _features(texts, queries, self.idf.cpu().numpy())
        found = text_PX @ self.weight.cpu().numpy() + SIMILARITY_INPUT * float(self.similarity) * cosine_P
        return torch.from_numpy(found.astype(np.float32)).to(self.idf.device)


def lexical_regressions(
    texts: Sequence[str], queries: Sequence[str | None], positive_P: np.ndarray, negative_P: np.ndarray
) -> Iterator[dict[str, Tensor]]:
    """State of a `LexicalResponse` by every penalty, strong to weak: regressions on what was observed of pairs.

    Args:
        texts: of the pairs.
        queries: theirs, or None.
        positive_P: weight of each pair's positive outcomes.
        negative_P: weight of its negative ones.
    """
    idf = _inverse_document_frequency(texts)
    text_PX, cosine_P = _features(texts, queries, idf)
    there = np.unique(text_PX.indices)  # a regression of all would hold some 50 MiB more
    similarity_P1 = sparse.csr_array(SIMILARITY_INPUT * cosine_P[:, None])
    inputs = sparse.hstack([text_PX[:, there], similarity_P1]).tocsr()
    known = [np.flatnonzero(weights > 0) for weights in (positive_P, negative_P)]
    rows = np.concatenate(known)
    labels = np.repeat([1, 0], [len(places) for places in known])
    weights = np.concatenate([positive_P[known[0]], negative_P[known[1]]]).astype(np.float64)
    # Together as much as the pairs are many: a penalty then means the same for rows and for millions of impressions.
    weights *= len(texts) / weights.sum()
    model = LogisticRegression(max_iter=100, warm_start=True)
    for penalty in PENALTIES:
        model.C = penalty
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough; the validation part chooses
            model.fit(inputs[rows], labels, weights)
        weight = np.zeros(HASHED, dtype=np.float32)
        weight[there] = model.coef_[0, :-1]
        yield {
            "idf": torch.from_numpy(idf),
            "weight": torch.from_numpy(weight),
            "similarity": torch.tensor(model.coef_[0, -1], dtype=torch.float32),
        }


_counted: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def _counts(texts: Sequence[str]) -> sparse.csr_array:
    """1 + log of how often each n-gram is in each text, (P, X)."""
    known = {text: _counted.get(text) for text in dict.fromkeys(texts)}
    new = [text for text, row in known.items() if row is None]
    if new:
        found = _hashed(new)
        parts = (np.split(values, found.indptr[1:-1]) for values in (found.indices, found.data))
        known.update(zip(new, zip(*parts, strict=True), strict=True))
        if len(_counted) + len(new) > MEMORY:
            _counted.clear()  # other threads have what they found
        _counted.update((text, row) for text in new[:MEMORY] if (row := known[text]) is not None)
    rows = [row for text in texts if (row := known[text]) is not None]
    indices, weights = (np.concatenate([row[place] for row in rows] or [np.zeros(0)]) for place in (0, 1))
    starts = np.cumsum([0, *(len(row[0]) for row in rows)])
    return sparse.csr_array((weights, indices.astype(np.int32), starts), shape=(len(texts), HASHED))


def _hashed(texts: Sequence[str]) -> sparse.csr_array:
    found = sparse.csr_array(_hashing.transform([text[:MAX_CHARACTERS] for text in texts]), dtype=np.float32)
    found.data = 1 + np.log(found.data)
    return found


def _inverse_document_frequency(texts: Sequence[str]) -> np.ndarray:
    """Smoothed, (X,) float32, over distinct texts."""
    distinct = list(dict.fromkeys(texts))
    counts = _counts(distinct)
    frequency = np.bincount(counts.indices, minlength=HASHED)
    return (np.log((1 + len(distinct)) / (1 + frequency)) + 1).astype(np.float32)


def _features(
    texts: Sequence[str], queries: Sequence[str | None], idf_X: np.ndarray
) -> tuple[sparse.csr_array, np.ndarray]:
    """TF-IDF weights of texts, (P, X), rows of length 1, and their cosine similarities with queries, (P,), or 0."""
    text_PX = _tf_idf(texts, idf_X)
    cosine_P = np.zeros(len(texts), dtype=np.float32)
    asked = [place for place, query in enumerate(queries) if query is not None]
    if asked:
        query_QX = _tf_idf([queries[place] or "" for place in asked], idf_X)
        cosine_P[asked] = text_PX[asked].multiply(query_QX).sum(axis=1)
    return text_PX, cosine_P


def _tf_idf(texts: Sequence[str], idf_X: np.ndarray) -> sparse.csr_array:
    found = _counts(texts)
    found.data = found.data * idf_X[found.indices]
    row_of = np.repeat(np.arange(len(texts)), np.diff(found.indptr))
    length = np.sqrt(np.bincount(row_of, found.data**2, minlength=len(texts)))
    found.data /= np.maximum(length, 1e-9)[row_of]
    return found
