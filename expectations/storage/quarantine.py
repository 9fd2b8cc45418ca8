"""Rows that break their contract: kept with the reason, never dropped."""

import pyarrow as pa

QUARANTINE_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("stage", pa.string()),  # "ingestion" or "validation"
        ("reason", pa.string()),  # the rule that failed and the offending value
        ("row", pa.string()),  # the whole row as a JSON object
    ]
)
"""Schema of the files under `quarantine/<source>/<table>/`."""
