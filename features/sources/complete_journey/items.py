"""The items of the Complete Journey in natural language: coupons of campaigns, and products.

A language model reads about 64 tokens of a text, so what tells coupons apart, the types of product,
comes before the dates of the campaign.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from features.sources.complete_journey.product_names import named_type, readable, readable_size, vocabulary

NUM_TYPES = 8
DEPARTMENTS = {"DRUG GM": "drugstore"}

CLEANED = """
    CREATE TEMP TABLE cleaned AS
    SELECT
        product_id, departments.word AS department, categories.word AS category, types.word AS type,
        sizes.word AS size, manufacturer_id,
        CASE brand WHEN 'Private' THEN 'store brand' ELSE 'national brand' END AS kind
    FROM products
    LEFT JOIN readable_names AS departments ON departments.raw = department
    LEFT JOIN readable_names AS categories ON categories.raw = product_category
    LEFT JOIN readable_names AS types ON types.raw = product_type
    LEFT JOIN sizes ON sizes.raw = package_size
"""

# A product sold or covered by a coupon that the catalogue lacks is an item without a text.
PRODUCTS = """
    SELECT
        CAST(product_id AS VARCHAR) AS item_id, 'product' AS item_type,
        nullif(concat_ws(', ', type, size, nullif(category, type), department, kind), '') AS text,
        nullif(list_filter([department, category, type], lambda name: name IS NOT NULL), []) AS categories,
        'manufacturer ' || manufacturer_id AS brand
    FROM (
        SELECT product_id FROM products UNION SELECT product_id FROM coupons
        UNION SELECT product_id FROM transactions
    ) LEFT JOIN cleaned USING (product_id)
"""

# The most frequent names first; equally frequent ones by the alphabet.
COVERED = """
    WITH covered AS (SELECT DISTINCT campaign_id, coupon_upc, product_id FROM coupons),
    counted AS (
        SELECT campaign_id, coupon_upc, level, name, any_value(category) AS category, count(*) AS num_products
        FROM (
            SELECT campaign_id, coupon_upc, category,
                unnest(['department', 'category', 'type', 'kind']) AS level,
                unnest([department, category, type, kind]) AS name
            FROM covered JOIN cleaned USING (product_id)
        ) WHERE name IS NOT NULL GROUP BY campaign_id, coupon_upc, level, name
    ),
    named AS (
        SELECT campaign_id, coupon_upc,
            list({'name': name, 'category': category} ORDER BY num_products DESC, name)
                FILTER (level = 'type') AS types,
            list(name ORDER BY num_products DESC, name) FILTER (level = 'category') AS categories,
            list(name ORDER BY num_products DESC, name) FILTER (level = 'department') AS departments,
            list(name ORDER BY num_products DESC, name) FILTER (level = 'kind') AS brands
        FROM counted GROUP BY campaign_id, coupon_upc
    )
    SELECT campaign_id || ':' || coupon_upc AS item_id, campaign_type, start_date, end_date, num_products,
        types, categories, departments, brands
    FROM (SELECT campaign_id, coupon_upc, count(*) AS num_products FROM covered GROUP BY ALL)
    JOIN campaign_descriptions USING (campaign_id)
    LEFT JOIN named USING (campaign_id, coupon_upc)
    ORDER BY ALL
"""

COUPON_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("item_type", pa.string()),
        ("text", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("valid_from", pa.timestamp("us")),
        ("valid_until", pa.timestamp("us")),
        ("campaign_type", pa.string()),
        ("campaign_days", pa.float64()),
        ("num_products", pa.float64()),
    ]
)


def select(con: duckdb.DuckDBPyConnection) -> str:
    """Prepare both kinds of item in a connection that has the package's views; SQL that gives them."""
    names = con.execute(
        "SELECT department FROM products UNION SELECT product_category FROM products "
        "UNION SELECT product_type FROM products"
    ).fetchall()
    known = vocabulary(raw for (raw,) in names if raw)
    readable_names = {raw: DEPARTMENTS.get(raw) or readable(raw, known) or None for (raw,) in names if raw}
    raw_sizes = con.execute("SELECT DISTINCT package_size FROM products").fetchall()
    sizes = {raw: readable_size(raw) for (raw,) in raw_sizes if raw}
    con.register(
        "readable_names", pa.table({"raw": list(readable_names), "word": list(readable_names.values())})
    )
    con.register("sizes", pa.table({"raw": list(sizes), "word": list(sizes.values())}))
    con.execute(CLEANED)
    coupons = [_coupon(row) for row in con.sql(COVERED).to_arrow_table().to_pylist()]
    con.register("rendered_coupons", pa.Table.from_pylist(coupons, schema=COUPON_SCHEMA))
    return f"SELECT * FROM rendered_coupons UNION ALL BY NAME {PRODUCTS}"  # noqa: S608 — a constant


def _coupon(found: Mapping[str, Any]) -> dict[str, object]:
    """One coupon item from a row of `COVERED`."""
    types, categories, departments = (found[level] or [] for level in ("types", "categories", "departments"))
    after = found["end_date"] + timedelta(days=1)
    narrowest = [type_["name"] for type_ in types]
    return {
        "item_id": found["item_id"],
        "item_type": "campaign",
        "text": coupon_text(found),
        "categories": [names[0] for names in (departments, categories, narrowest) if names] or None,
        "valid_from": found["start_date"],
        "valid_until": after,
        "campaign_type": found["campaign_type"],
        "campaign_days": float((after - found["start_date"]).days),
        "num_products": float(found["num_products"]),
    }


def coupon_text(found: Mapping[str, Any]) -> str:
    """A coupon in natural language, from a row of `COVERED`: its lists may be null."""
    types, categories, departments, brands = (
        found[level] or [] for level in ("types", "categories", "departments", "brands")
    )
    names = [named_type(type_["name"], type_["category"]) for type_ in types]
    num_products = found["num_products"]
    count = "1 product" if num_products == 1 else f"{num_products:,} products"
    shown = ", ".join(dict.fromkeys(names[:NUM_TYPES]))
    more = " and more" if len(names) > NUM_TYPES else ""
    goods = f"Coupon for {count}" + (f": {shown}{more}" if shown else "")
    made_by = "national and store brands" if len(brands) > 1 else "".join(f"{brand}s" for brand in brands)
    places = [*categories[:1], *(f"{department} department" for department in departments[:1]), made_by]
    where = ", ".join(place for place in places if place)
    when = f"{found['campaign_type']} campaign from {_day(found['start_date'])} to {_day(found['end_date'])}."
    return " ".join(f"{goods}. {where[:1].upper()}{where[1:]}. {when}".replace(" . ", " ").split())


def _day(timestamp: datetime) -> str:
    return f"{timestamp.day} {timestamp:%B} {timestamp.year}"
