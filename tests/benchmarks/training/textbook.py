"""The textbook fine-tuning: a BERT-style sequence classifier that reads one text a row.

What most tutorials do: each row is written out as text, tokenised when its turn comes, padded to the greatest
length, and read by the whole model; batches of 16, AdamW at 2e-5, a tenth of the steps to warm up, then linear
decay, the gradient's norm cut at 1. A row's text is the user's facts and interactions (the most frequent
first), then, as the second segment, the context and the candidate's text. It gets the counts of past baskets
too, so that it knows what ours knows as far as the length allows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from training.data.dataset import Examples
from training.language.pretrained import read_pretrained
from training.runtime.device import first_device

BATCH, LENGTH, RATE, WARMUP, DECAY = 16, 128, 2e-5, 0.1, 0.01
SHOWN = 16  # topics of a history that are written out; more do not fit
# User and user-item features that are written out, beside the interactions.
WRITTEN = (
    "user_item_topic_sessions",
    "user_item_topic_days",
    "user_item_item_sessions",
    "user_item_department_sessions",
    "user_item_topic_coupons",
    "user_item_item_coupons",
    "user_num_outcomes",
    "user_num_sessions",
    "user_income",
    "user_household_size",
    "user_age",
)


class WrittenRows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows as a tutorial's dataset: one text a row, tokenised when it is asked for.

    Args:
        data: the examples.
        rows: (N,) row numbers.
        tokenizer: the model's.
        length: tokens that every row is cut or padded to.
    """

    def __init__(self, data: Examples, rows: np.ndarray, tokenizer: Any, *, length: int = LENGTH) -> None:
        self.data, self.rows, self.tokenizer, self.length = data, rows, tokenizer, length
        self.columns = {name: data.rows[name].to_numpy() for name in data.rows.columns}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        row = int(self.rows[place])
        tokens = self.tokenizer(
            *self.texts(row),
            truncation="only_first",
            max_length=self.length,
            padding="max_length",
            return_tensors="pt",
        )
        label = torch.tensor(float(self.columns["label"][row]))
        return {
            "row": torch.tensor(row),
            "label": label,
            **{name: value[0] for name, value in tokens.items()},
        }

    def texts(self, row: int) -> tuple[str, str]:
        """The user, and the context and the candidate, written out."""
        known = [
            f"{name.partition('_')[2].replace('_', ' ')} {self._feature(row, name)}"
            for name in WRITTEN
            if name in self.columns and self._feature(row, name)
        ]
        shopper = f"shopper: {', '.join(known)}. bought: {', '.join(self._interactions(row))}"
        candidate = self.data.texts[int(self.columns["text_id"][row])][: LENGTH * 4]
        return shopper, f"{self._feature(row, 'context_channel')}: {candidate}"

    def _feature(self, row: int, name: str) -> str:
        """A feature written out; nothing where it is unknown or 0."""
        value = self.columns[name][row]
        if pd.isna(value) or value == 0:
            return ""
        return str(value) if isinstance(value, str) else f"{value:.0f}"

    def _interactions(self, row: int) -> list[str]:
        """The narrowest category of each interaction, and how often."""
        history = int(self.columns["history_id"][row])
        text_ids = self.data.interaction_histories.text_ids[history]
        times = self.data.interaction_histories.features[history, :, 0] * (text_ids >= 0)
        often = np.argsort(-times, kind="stable")[:SHOWN]
        named = [(self.data.texts[text_ids[at]], times[at]) for at in often if text_ids[at] >= 0]
        return [f"{text.split(', ')[-1]} {count:.0f}" for text, count in named]


class Textbook:
    """The classifier and its loop.

    Args:
        encoder: the pretrained model, as a recipe names it.
        seed: of the head's first weights and of the order of rows.
        trainable_layers: the top layers that learn, -1: all of them and the embeddings.
    """

    def __init__(self, encoder: str, *, seed: int, trainable_layers: int = -1) -> None:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(seed)
        self.seed = seed
        self.device = first_device()
        _, self.tokenizer, place = read_pretrained(encoder)
        self.model = AutoModelForSequenceClassification.from_pretrained(place, num_labels=1).to(self.device)
        self.length = min(LENGTH, int(self.model.config.max_position_embeddings))
        if trainable_layers >= 0:
            layers = list(self.model.base_model.encoder.layer)
            self.model.base_model.requires_grad_(False)
            for layer in layers[len(layers) - trainable_layers :]:
                layer.requires_grad_(True)

    def fit(
        self, data: Examples, rows: np.ndarray, *, sampling_rate: float, seconds: float, epochs: int = 1
    ) -> tuple[np.ndarray, float]:
        """Some epochs over the rows, or as far as the wall time goes.

        Args:
            data: the examples.
            rows: (N,) row numbers.
            sampling_rate: of the negatives that are among them; the loss corrects for it as ours does.
            seconds: wall time after which the loop ends; the learning rate has fallen to 0 by then.
            epochs: how often each row comes.

        Returns:
            Numbers of the rows whose loss was computed, one that came twice stands twice; and the wall time.
        """
        shuffle = torch.Generator().manual_seed(self.seed)
        written = WrittenRows(data, rows, self.tokenizer, length=self.length)
        loader = torch.utils.data.DataLoader(written, batch_size=BATCH, shuffle=True, generator=shuffle)
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=DECAY)
        self.model.train()
        start, seen = time.perf_counter(), np.zeros(0, dtype=np.int64)
        for batch in chain.from_iterable(repeat(loader, epochs)):
            done = max(len(seen) / (epochs * len(rows)), (time.perf_counter() - start) / seconds)
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(max(done, 0.01) / WARMUP, (1 - done) / (1 - WARMUP))
            rows_seen, label = batch.pop("row"), batch.pop("label").to(self.device)
            logit = self._logit(batch) - float(np.log(sampling_rate))
            loss = nn.functional.binary_cross_entropy_with_logits(logit, label)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            seen = np.concatenate([seen, rows_seen.numpy()])
        return seen, time.perf_counter() - start

    @torch.inference_mode()
    def probabilities(
        self, data: Examples, rows: np.ndarray, *, tell: Callable[[str], None] = lambda _: None
    ) -> np.ndarray:
        """Probabilities of rows, (N,)."""
        self.model.eval()
        loader = torch.utils.data.DataLoader(
            WrittenRows(data, rows, self.tokenizer, length=self.length), batch_size=64
        )
        found = []
        for number, batch in enumerate(loader):
            del batch["row"], batch["label"]
            found.append(torch.sigmoid(self._logit(batch).double()).cpu().numpy())
            if number % 20 == 0:
                tell(f"textbook: {number * 64} of {len(rows)} rows scored")
        return np.concatenate(found)

    def _logit(self, batch: dict[str, Tensor]) -> Tensor:
        inputs = {name: value.to(self.device) for name, value in batch.items()}
        logit: Tensor = self.model(**inputs).logits[:, 0]
        return logit


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Rows drawn from many: every positive and some of the negatives.

    Attributes:
        rows: (N,) row numbers.
        sampling_rate: of the negatives.
    """

    rows: np.ndarray
    sampling_rate: float

    @classmethod
    def of(cls, labels: np.ndarray, rows: np.ndarray, *, negatives: int, seed: int) -> "Drawn":
        """Draw that many of the negatives (all, where there are fewer)."""
        negative = rows[labels[rows] == 0]
        rng = np.random.default_rng(seed)
        drawn = rng.choice(negative, min(negatives, len(negative)), replace=False)
        chosen = np.sort(np.concatenate([rows[labels[rows] > 0], drawn]))
        return cls(rows=chosen, sampling_rate=len(drawn) / max(len(negative), 1))


def drawn_query_groups(
    labels: np.ndarray, query_group_id: np.ndarray, rows: np.ndarray, *, count: int, seed: int
) -> np.ndarray:
    """All rows of some query groups that have a positive, ascending row numbers."""
    positive = np.unique(query_group_id[rows[labels[rows] > 0]])
    chosen = np.random.default_rng(seed).choice(positive, min(count, len(positive)), replace=False)
    return rows[np.isin(query_group_id[rows], chosen)]


def as_if_all(labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    """Places among the drawn rows, the negatives' repeated so often that they stand for all negatives."""
    times = np.where(labels[drawn.rows] > 0, 1, round(1 / drawn.sampling_rate))
    return np.repeat(np.arange(len(drawn.rows)), times)
