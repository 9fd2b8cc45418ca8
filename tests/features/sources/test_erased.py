"""Shoppers who were erased do not land again from the shop's files, in whatever column or line they stand."""

import json

import pytest

from expectations.contracts.source import read_source
from expectations.errors import SettingError
from expectations.storage.erasures import NOBODY, add_erased, read_erased
from expectations.storage.masking import Mask
from features.sources.landing import ingest
from features.sources.tables import connector  # noqa: F401 - loaded before the test counts its time
from tests.features.sources.test_tables import Shop

MASK = Mask(key="a key")
EXPOSURES = (
    "exposure_id,user_id,item_id,scenario,event_timestamp,outcome\n"
    "e1,shopper-77,c1,campaign,2024-02-01 08:00:00,true\n"
    "e2,u2,c1,campaign,2024-01-31 23:30:00,0\n"
    "e3,shopper-77,c1,campaign,someday,0\n"
    "e4,u2,c1,campaign,someday,0\n"
    "e5,shopper-77,c1,campaign,2024-01-31,0,more,and more\n"
)


def test_their_rows_neither_land_nor_stay_in_quarantine(tmp_path):
    shop = Shop(tmp_path)
    shop.bring("exposures.csv", EXPOSURES)
    assert shop.ingest()["exposures"].num_rows == 2 and len(shop.rejected("exposures")) == 3
    add_erased(tmp_path, MASK, "shopper-77", "2026-11-29T12:00:00Z")
    landed = ingest(
        read_source(shop.source),
        tables_dir=shop.tables_dir,
        quarantine_dir=shop.quarantine_dir,
        tolerance=1.0,
        erased=lambda: read_erased(tmp_path, MASK),
    )
    assert [row["exposure_id"] for row in shop.rows(landed["exposures"])] == ["e2"]
    (left,) = shop.rejected("exposures")
    assert json.loads(left["row"])["exposure_id"] == "e4"
    assert landed["exposures"].written and not landed["items"].written


def test_the_list_has_hashes_only_and_needs_its_key(tmp_path):
    assert read_erased(tmp_path, MASK) is NOBODY and "u1" not in NOBODY
    for user in ("shopper-77", "u1"):
        add_erased(tmp_path, MASK, user, "2026-11-29T12:00:00Z")
    erased = read_erased(tmp_path, MASK)
    assert "shopper-77" in erased and "u1" in erased and "u2" not in erased
    assert "shopper-77" not in (tmp_path / "erased.json").read_text()
    with pytest.raises(SettingError, match="another key"):
        read_erased(tmp_path, Mask(key="another"))
