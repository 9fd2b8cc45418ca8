"""What somebody should look at, and the channels that tell of it. Knows nothing of Dagster."""
