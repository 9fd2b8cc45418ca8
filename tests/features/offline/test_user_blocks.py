"""Histories computed for some shoppers at a time are those computed for all at once."""

from functools import partial

import pandas as pd
import pytest

from features.offline import user_blocks
from features.offline.engine import SCRATCH, bounded_engine, write_table
from features.offline.user_blocks import write_by_user_blocks
from features.views.shop import read_shop, user_entity_rows
from features.views.user_history import user_history
from tests.features import small_shop

NOW = (small_shop.START + pd.Timedelta(days=100)).to_pydatetime()


@pytest.mark.parametrize("pairs", [1, 2000, 10**9])
def test_blocks_together_are_the_whole(tmp_path, monkeypatch, pairs):
    checked = small_shop.land(tmp_path / "checked", small_shop.frames())
    monkeypatch.setattr(user_blocks, "PAIRS", pairs)
    compute = partial(user_history, history_days=180, rating_range=None)
    with bounded_engine(None, tmp_path / SCRATCH) as connection:
        shop = read_shop(connection, checked, small_shop.SOURCE)
        entity_rows = user_entity_rows(shop, NOW)
        num_rows = write_by_user_blocks(
            connection, shop, entity_rows, compute, tmp_path / "blocks.parquet", tmp_path / SCRATCH
        )
        assert num_rows == write_table(connection, compute(shop, entity_rows), tmp_path / "whole.parquet")
        assert not list((tmp_path / SCRATCH).iterdir())
    by_blocks, whole = (
        pd.read_parquet(tmp_path / f"{name}.parquet")
        .sort_values(["user_id", "event_timestamp"], ignore_index=True)
        .map(lambda value: list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value)
        for name in ("blocks", "whole")
    )
    pd.testing.assert_frame_equal(by_blocks, whole)
    assert by_blocks["items"].map(len).max() > 1
