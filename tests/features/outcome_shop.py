"""A shop with requests, anonymous readers, positions, aggregates and grades, and without events."""

import pandas as pd

from expectations.contracts.source import Source, TableSource

SOURCE = Source(name="kinds", connector="tables", tables={"exposures": TableSource()})
DAY = pd.Timestamp("2024-03-01")
ITEMS = pd.DataFrame({"item_id": ["a", "b"], "item_type": "content", "text": ["one", "two"]})
EXPOSURES = pd.DataFrame(
    [
        # exposure, user, request, hour, position, impressions, clicks, outcome
        ("x0", None, "r0", 0, 1, 200, 10, None),
        ("x1", None, "r0", 1, 2, 100, 0, None),
        ("x2", "u", None, 2, None, None, None, 3.0),
        ("x3", "u", None, 2, None, None, None, 1.0),
        ("x4", "u", None, 3, None, None, None, 0.0),
        ("x5", "u", "r1", 3, None, None, None, None),
        ("x6", None, None, 3, None, 50, None, None),
    ],
    columns=["exposure_id", "user_id", "request_id", "hour", "position", "impressions", "clicks", "outcome"],
)


def tables() -> dict[str, pd.DataFrame]:
    """The contract's required tables."""
    frame = EXPOSURES.assign(item_id=["a", "b", "a", "b", "a", "b", "a"], scenario="content")
    frame["event_timestamp"] = DAY + pd.to_timedelta(frame.pop("hour"), unit="h")
    return {"items": ITEMS, "exposures": frame}
