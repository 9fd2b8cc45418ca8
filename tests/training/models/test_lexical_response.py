"""What the characters of texts say: learned from counts, of words that nobody knows, and with a query."""

import numpy as np
import torch

from training.evaluation.metrics import auc
from training.models.lexical_response import LexicalResponse, lexical_regressions

NUM_PAIRS = 600
WORDS = np.array(
    [f"{first}{second}{third}" for first in "质量好差买卖" for second in "的了很不" for third in "xqzk"]
)


def sentences(rng, count=NUM_PAIRS):
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


def fitted(texts, queries, positive, negative, penalty=3):
    lexical = LexicalResponse()
    lexical.load_state_dict(list(lexical_regressions(texts, queries, positive, negative))[penalty])
    return lexical


def test_it_is_silent_until_it_is_fitted():
    assert not LexicalResponse().logits(["a", ""], [None, "a"]).any()


def test_words_in_no_language_are_learned_and_found_in_new_texts():
    rng = np.random.default_rng(0)
    truth = dict(zip(WORDS, rng.normal(size=len(WORDS)), strict=True))
    texts = sentences(rng)
    logit = np.array([sum(truth[word] for word in text.split()) for text in texts])
    label = (rng.random(len(texts)) < 1 / (1 + np.exp(-2 * logit))).astype(np.float32)
    known, new = slice(0, 500), slice(500, None)
    lexical = fitted(texts[known], [None] * 500, label[known], 1 - label[known])
    found = lexical.logits(texts[new], [None] * 100)
    assert found.shape == (100,) and found.dtype == torch.float32
    assert auc(label[new], found.numpy()) > 0.85


def test_a_text_means_the_same_alone_and_among_others():
    rng = np.random.default_rng(1)
    texts = sentences(rng, 40)
    queries = [None if number % 2 else text[:8] for number, text in enumerate(texts)]
    label = (np.arange(40) % 3 == 0).astype(np.float32)
    lexical = fitted(texts, queries, label, 1 - label)
    together = lexical.logits(texts, queries)
    alone = torch.cat([lexical.logits([text], [query]) for text, query in zip(texts, queries, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert lexical.logits([""], [""]).isfinite().all()


def test_what_text_and_query_share_counts_beside_the_text():
    rng = np.random.default_rng(2)
    texts = sentences(rng)
    fits = np.arange(NUM_PAIRS) % 2
    others = rng.permutation(texts)
    queries = [
        " ".join(text.split()[:2]) if fit else " ".join(other.split()[:2])
        for text, other, fit in zip(texts, others, fits, strict=True)
    ]
    label = fits.astype(np.float32)
    lexical = fitted(texts[:400], queries[:400], label[:400], 1 - label[:400])
    assert lexical.similarity > 0
    assert auc(label[400:], lexical.logits(texts[400:], queries[400:]).numpy()) > 0.9


def test_it_learns_from_counts():
    texts = ["warm bread", "warm stones"] * 10
    positive = np.array([60.0, 20.0] * 10, dtype=np.float32)
    lexical = fitted(texts, [None] * 20, positive, 100 - positive, penalty=4)
    bread, stones = lexical.logits(texts[:2], [None] * 2).tolist()
    assert 1.0 < bread - stones < 2.0  # log odds of 60 % and 20 % are 1.79 apart
