"""The assets: thin adapters from a pipeline step's result to Dagster's metadata."""
