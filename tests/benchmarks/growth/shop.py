"""A synthetic shop of any size, written by DuckDB: a day's offers in requests of ten, and ten events an exposure.

A user has one of four tastes, which shows in what they buy; an offer of that subject has more positives. Users,
events and requests grow with the exposures, items do not.
"""

import shutil
from pathlib import Path

import duckdb

from expectations.suites.rules import literal
from tests.training.synthetic import SUBJECTS

EVENTS = 10  # of an exposure
EXPOSURES = 100  # of a user
REQUEST = 10  # exposures shown together
OFFERS, PRODUCTS = 1000, 1000
DAYS, FIRST_DAY, TEST_DAY = 180, 60, 150  # of events; of the first exposure and the first of the test part
DECLARED = """\
name = "growth"
clock = "data"

[tables.users]
location = "users.parquet"
extra = { age_group = "categorical" }

[tables.items]
location = "items.parquet"

[tables.events]
location = "events.parquet"

[tables.exposures]
location = "exposures.parquet"
constants = { scenario = "campaign" }

[split]
test_from = 2024-05-30
"""
TABLES = {
    "users": "SELECT 'u' || u AS user_id, 'age ' || (u // 4 % 5) AS age_group FROM range({users}) t(u)",
    "items": """
        SELECT 'offer ' || i AS item_id, 'campaign' AS item_type, 'Coupon for ' || subject || ', offer ' || i AS text,
            [subject] AS categories
        FROM range({offers}) t(i) JOIN subjects ON subjects.number = i % 4
        UNION ALL
        SELECT 'product ' || i, 'product', subject || ' ' || i, [subject]
        FROM range({products}) t(i) JOIN subjects ON subjects.number = i % 4
    """,
    "events": """
        SELECT
            e AS event_id,
            'u' || (e // {per_user}) AS user_id,
            'product ' || CASE WHEN hash(e, 1) % 10 < 7
                THEN (hash(e, 2) % ({products} // 4)) * 4 + (e // {per_user}) % 4
                ELSE hash(e, 3) % {products} END AS item_id,
            CASE WHEN hash(e, 4) % 4 = 0 THEN 'purchase' ELSE 'view' END AS event_type,
            TIMESTAMP '2024-01-01' + to_seconds(hash(e, 5) % ({days} * 86400)) AS event_timestamp,
            (1 + hash(e, 6) % 500) / 10.0 AS amount
        FROM range({events}) t(e)
    """,
    "exposures": """
        WITH drawn AS (
            SELECT
                x,
                x // {request} AS request,
                x // {request} % {users} AS u,
                hash(x, 7) % {offers} AS offer,
                {first} + hash(x // {request}, 8) % ({days} - {first}) AS day,
                hash(x // {request}, 9) % 86000 AS second,
                hash(x, 10) % 1000 AS luck
            FROM range({exposures}) t(x)
        ), labelled AS (
            SELECT *, luck < CASE WHEN offer % 4 = u % 4 THEN 60 ELSE 10 END AS outcome FROM drawn
        )
        SELECT
            x AS exposure_id,
            'r' || request AS request_id,
            'u' || u AS user_id,
            'offer ' || offer AS item_id,
            TIMESTAMP '2024-01-01' + to_days(day::INT) + to_seconds(second) AS event_timestamp,
            ['web', 'mail', 'app'][1 + request % 3] AS channel,
            outcome,
            CASE WHEN outcome THEN event_timestamp + INTERVAL 5 MINUTE END AS outcome_timestamp
        FROM labelled
    """,
}


def write(folder: Path, size: int) -> Path:
    """A shop's folder of so many exposures, and its `source.toml`, whose path is returned."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers = {
        "users": max(size // EXPOSURES, 1),
        "offers": OFFERS,
        "products": PRODUCTS,
        "events": EVENTS * size,
        "per_user": EVENTS * EXPOSURES,
        "exposures": size,
        "request": REQUEST,
        "days": DAYS,
        "first": FIRST_DAY,
    }
    with duckdb.connect(config={"temp_directory": str(folder / "spill")}) as con:
        con.execute("SET memory_limit = '2GB'; SET preserve_insertion_order = false")
        con.execute("CREATE TABLE subjects (number INT, subject VARCHAR)")
        con.executemany("INSERT INTO subjects VALUES (?, ?)", [*enumerate(SUBJECTS[:4])])
        for name, select in TABLES.items():
            path = literal(str(folder / f"{name}.parquet"))
            con.execute(f"COPY ({select.format(**numbers)}) TO {path} (FORMAT parquet)")
    source = folder / "source.toml"
    source.write_text(DECLARED)
    return source
