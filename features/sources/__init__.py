"""Connectors: a shop's raw data becomes the contract's tables. Each runs alone with `python -m`."""
