"""f(a, c): what the words say to this shopper, a logit from texts and context.

The candidate's text (with the query's, where there is one) attends over the texts of what the shopper did.
How well two texts go together depends on the texts alone, not on the row. So it is computed once for each
pair of distinct texts in a batch, and rows look it up: a batch of ten thousand rows costs one small matrix.

Shapes: N rows, P distinct (candidate, query) pairs, V distinct texts, E width of a text's vector,
M channels, W width of a channel, H length of a history, X entry features.
"""

import math

import torch
from torch import Tensor, nn

from training.batches import Batch
from training.tabular import CategoryEncoding, NumericEncoding
from training.transforms import Transforms

ENTRY_FEATURES = 5
STEPS = 5
CONTEXT = "context_"


class WordsAttention(nn.Module):
    """The candidate's look at the history, and a small network over what it saw.

    Args:
        transforms: fitted transforms; the features named context_* go with the words.
        text_width: E.
        channels: M, ways of looking.
        channel_width: W.
        width: hidden units of the network at the end.
        dropout: share of its inputs and hidden units left out in training.
    """

    def __init__(
        self,
        transforms: Transforms,
        *,
        text_width: int,
        channels: int,
        channel_width: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.channels, self.channel_width = channels, channel_width
        self.candidate = nn.Linear(text_width, channels * channel_width)
        self.query = nn.Linear(text_width, channels * channel_width, bias=False)
        self.keys = nn.Linear(text_width, channels * channel_width)
        self.values = nn.Linear(text_width, channels * channel_width)
        # A channel starts as plain likeness of texts, each at its own sharpness.
        self.likeness = nn.Parameter(torch.linspace(2.0, 20.0, channels))
        self.entry = nn.Linear(ENTRY_FEATURES, channels)
        # Soft steps: a history text counts as like the candidate above such a cosine.
        self.steps = nn.Parameter(torch.linspace(0.3, 0.8, STEPS))
        self.steepness = nn.Parameter(torch.full((STEPS,), math.log(20.0)))
        self.subject = nn.Linear(text_width, channel_width)
        self.context = ContextEncoding(transforms)
        seen = channels * (ENTRY_FEATURES + 3) + STEPS * 2 + 3
        self.network = nn.Sequential(
            nn.Linear(seen + channel_width + self.context.width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, batch: Batch, vectors_VE: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f (N,) and the attention over the history, the mean of the channels, (N, H)."""
        like_NH, fit_NHM, value_NHM, query_N = self._pairs(batch, vectors_VE)
        there_NH = batch.history >= 0
        entries_NHX = entry_features(batch.history_features) * there_NH[:, :, None]
        looks_NHM = fit_NHM + self.likeness * like_NH[:, :, None] + self.entry(entries_NHX)
        attention_NHM = softmax_with_nothing(looks_NHM, there_NH)
        seen = torch.cat([entries_NHX, like_NH[:, :, None]], dim=2)
        by_channel = torch.einsum("nhm,nhx->nmx", attention_NHM, seen).flatten(1)
        values = (attention_NHM * value_NHM).sum(1)
        counts = self._soft_counts(like_NH, there_NH, entries_NHX)
        most = like_NH.masked_fill(~there_NH, -1).amax(1, keepdim=True)
        looked = attention_NHM.sum(1)
        alone = (~there_NH).all(1, keepdim=True).float()
        subject = torch.relu(self.subject(vectors_VE[batch.pair_text]))[batch.pair]
        context = self.context(batch.numbers, batch.codes)
        parts = [by_channel, values, looked, counts, most, alone, query_N[:, None], subject, context]
        hidden = self.network(self.dropout(torch.cat(parts, dim=1)))
        return self.out(hidden).squeeze(1), attention_NHM.mean(2)

    def _pairs(self, batch: Batch, vectors_VE: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Likeness (N, H), fit (N, H, M), value (N, H, M), and likeness of query and candidate (N,)."""
        text_PE = vectors_VE[batch.pair_text]
        asked_P1 = (batch.pair_query >= 0).float()[:, None]
        query_PE = vectors_VE[batch.pair_query.clamp_min(0)] * asked_P1
        look = (self.candidate(text_PE) + self.query(query_PE)).unflatten(1, (self.channels, -1))
        keys = self.keys(vectors_VE).unflatten(1, (self.channels, -1))
        values = self.values(vectors_VE).unflatten(1, (self.channels, -1))
        scale = 1 / math.sqrt(self.channel_width)
        fit_PVM = torch.einsum("pmw,vmw->pvm", look, keys) * scale
        value_PVM = torch.einsum("pmw,vmw->pvm", look, values) * scale
        like_PV1 = (text_PE @ vectors_VE.T)[:, :, None]
        table = torch.cat([like_PV1, fit_PVM, value_PVM], dim=2).flatten(0, 1)
        cell_NH = batch.pair[:, None] * len(vectors_VE) + batch.history.clamp_min(0)
        found = nn.functional.embedding(cell_NH, table)
        like, fit, value = found.split([1, self.channels, self.channels], dim=2)
        query_likeness = (text_PE * query_PE).sum(1)[batch.pair]
        return like.squeeze(2), fit, value, query_likeness

    def _soft_counts(self, like_NH: Tensor, there_NH: Tensor, entries_NHX: Tensor) -> Tensor:
        """Logarithms of how many acts and entries are like the candidate, above each step."""
        above = (like_NH[:, :, None] - self.steps) * self.steepness.exp()
        weight = torch.sigmoid(above) * there_NH[:, :, None]
        acts = torch.expm1(entries_NHX[:, :, :1])
        return torch.log1p(torch.cat([(weight * acts).sum(1), weight.sum(1)], dim=1))


class ContextEncoding(nn.Module):
    """The features named context_*: standardised logarithms, "unknown" flags and one-hot categories."""

    numeric: Tensor
    categorical: Tensor

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        part, numeric, categorical = transforms.named(CONTEXT)
        self.numbers = NumericEncoding(part)
        self.categories = CategoryEncoding(part)
        self.register_buffer("numeric", torch.tensor(numeric, dtype=torch.long))
        self.register_buffer("categorical", torch.tensor(categorical, dtype=torch.long))
        self.width = 2 * len(numeric) + self.categories.width

    def forward(self, numbers_NF: Tensor, codes_NC: Tensor) -> Tensor:
        """(N, width) without NaN."""
        numbers = numbers_NF[:, self.numeric]
        unknown = torch.isnan(numbers)
        logs = self.numbers.standardised(numbers.nan_to_num()).masked_fill(unknown, 0)
        categories = self.categories(codes_NC[:, self.categorical])
        return torch.cat([logs, unknown.float(), categories], dim=1)


def entry_features(raw_NH3: Tensor) -> Tensor:
    """Events, amount and days ago as X numbers near 1: logarithms, two rates of forgetting, a constant."""
    events, amounts, days = raw_NH3.clamp_min(0).unbind(2)
    forgotten = [torch.exp(-days / 14), torch.exp(-days / 90)]
    ones = torch.ones_like(days)
    return torch.stack([torch.log1p(events), torch.log1p(amounts) / 3, *forgotten, ones], dim=2)


def softmax_with_nothing(looks_NHM: Tensor, there_NH: Tensor) -> Tensor:
    """Softmax over H and one more place, "nothing", of look 0; where there is no history all goes there."""
    looks = looks_NHM.masked_fill(~there_NH[:, :, None], -1e4)
    nothing = torch.zeros_like(looks[:, :1])
    return torch.cat([nothing, looks], dim=1).softmax(dim=1)[:, 1:]
