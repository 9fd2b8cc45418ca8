"""A small examples folder for edge cases: shoppers like a subject, and answer to its candidates."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    INTERACTION_HISTORY_SCHEMA,
    NEXT_INTERACTION_SCHEMA,
    NEXT_INTERACTIONS,
    ROW_SCHEMA,
    ROWS,
    TEXT_SCHEMA,
    TEXTS,
    ExampleSchema,
)

SUBJECTS = ("fresh coffee beans", "dog food", "frozen pizza", "garden flowers")
SCHEMA = ExampleSchema(
    source="synthetic",
    fingerprint="0",
    feature_service="none",
    numeric=("user_events", "item_popularity", "cross_visits", "context_hour"),
    categorical=("item_kind", "context_channel"),
    popularity="item_popularity",
    activity="user_events",
    slices=("context_channel",),
    test_from=datetime(2020, 1, 9),
    validation_fraction=0.25,
    horizon=datetime(2020, 2, 1),
)


def make_rows(rng: np.random.Generator, num_users: int, num_days: int) -> pd.DataFrame:
    """One list of all candidates for each shopper and day."""
    num_items = 2 * len(SUBJECTS)
    grid = np.array([(d, u, i) for d in range(num_days) for u in range(num_users) for i in range(num_items)])
    day, user, item = grid.T
    likes = user % len(SUBJECTS)
    fits = (item % len(SUBJECTS)) == likes
    visits = np.where(fits, rng.poisson(3, len(grid)), rng.poisson(0.3, len(grid))).astype(np.float32)
    odds = -3.5 + 2.5 * fits + 0.4 * visits
    label = (rng.random(len(grid)) < 1 / (1 + np.exp(-odds))).astype(np.float32)
    query = np.where(item % 3 == 0, num_items + likes, -1)
    return pd.DataFrame(
        {
            "exposure_id": [str(number) for number in range(len(grid))],
            "user_id": [f"u{number}" for number in user],
            "item_id": [f"i{number}" for number in item],
            "scenario": "campaign",
            "event_timestamp": [datetime(2020, 1, 1) + timedelta(days=int(number)) for number in day],
            "query_group_id": day * num_users + user,
            "label": label,
            "weight": np.ones(len(label), dtype=np.float32),
            "text_id": item,
            "query_id": query,
            "history_id": user,
            "user_events": (user % 5 * 4).astype(np.float32),
            "item_popularity": (item * 3 + rng.random(len(grid))).astype(np.float32),
            "cross_visits": np.where(rng.random(len(grid)) < 0.1, np.nan, visits).astype(np.float32),
            "context_hour": rng.integers(0, 24, len(grid)).astype(np.float32),
            "item_kind": np.where(item % 2 == 0, "coupon", "festival"),
            "context_channel": np.where(rng.random(len(grid)) < 0.5, "web", None),
        }
    )


def write_examples(
    folder: Path,
    *,
    seed: int = 0,
    num_users: int = 24,
    num_days: int = 12,
    rows: pd.DataFrame | None = None,
    texts: list[str] | None = None,
    next_interactions: bool = True,
    **schema: Any,
) -> Path:
    """Write a folder and return it; `rows`, `texts` and schema values may be given."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frame = make_rows(rng, num_users, num_days) if rows is None else rows
    candidates = [f"Coupon for {subject}, offer {number}" for number in range(2) for subject in SUBJECTS]
    if texts is None:
        texts = [*candidates, *(f"show me {subject}" for subject in SUBJECTS), *SUBJECTS]
    first = len(candidates) + len(SUBJECTS)
    lengths = [number % 4 for number in range(num_users)]
    liked = [
        [first + (number + step) % len(SUBJECTS) for step in range(length)]
        for number, length in enumerate(lengths)
    ]
    histories = {
        "history_id": range(num_users),
        "text_ids": liked,
        "events": [[9.0, 1.0, 1.0][:length] for length in lengths],
        "amounts": [[30.0, 2.0, 5.0][:length] for length in lengths],
        "days_ago": [[1.0, 20.0, 50.0][:length] for length in lengths],
        "sentiments": [[0.0] * length for length in lengths],
    }
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for field in ROW_SCHEMA:
        if field.name in table.column_names:
            place = table.column_names.index(field.name)
            table = table.set_column(place, field, table.column(field.name).cast(field.type))
    pq.write_table(table, folder / ROWS)
    pq.write_table(pa.table(histories, schema=INTERACTION_HISTORY_SCHEMA), folder / INTERACTION_HISTORIES)
    pq.write_table(
        pa.table({"text_id": range(len(texts)), "text": texts}, schema=TEXT_SCHEMA), folder / TEXTS
    )
    if next_interactions:
        write_next_interactions(folder, liked, first)
    replace(SCHEMA, **schema).write(folder)
    return folder


def write_next_interactions(folder: Path, liked: list[list[int]], first: int) -> None:
    """Each shopper's future at four timestamps, the subject that it likes; only the first two end in time."""
    timestamps = [
        datetime(2019, 11, 1),
        datetime(2019, 12, 4),
        datetime(2019, 12, 11),
        datetime(2019, 12, 25),
    ]
    shoppers = range(len(liked))
    pq.write_table(
        pa.table(
            {
                "history_id": [number for _ in timestamps for number in shoppers],
                "event_timestamp": [timestamp for timestamp in timestamps for _ in shoppers],
                "text_ids": [[first + number % len(SUBJECTS)] for _ in timestamps for number in shoppers],
            },
            schema=NEXT_INTERACTION_SCHEMA,
        ),
        folder / NEXT_INTERACTIONS,
    )


def write_encoder(folder: Path, *, layers: int = 2) -> Path:
    """A tiny BERT with random weights and a tokenizer of whole words and letters."""
    import string

    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for text in (*SUBJECTS, "coupon for offer show me") for word in text.split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, *string.ascii_lowercase, *string.digits]
    tokens += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
