"""Connectors: a shop's raw data becomes the contract's tables. Each runs alone with `python -m`."""

from pathlib import Path

COMPLETE_JOURNEY: Path = Path(__file__).with_name("complete_journey.toml")
"""The packaged declaration of the Complete Journey data."""
