"""Connectors: a shop's raw data becomes the contract's tables. Each runs alone with `python -m`."""

from pathlib import Path

COMPLETE_JOURNEY: Path = Path(__file__).parent / "complete_journey" / "source.toml"
"""The packaged declaration of the Complete Journey data."""
