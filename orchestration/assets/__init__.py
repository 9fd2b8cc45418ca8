"""The assets: thin adapters from a step's result to Dagster's metadata."""
