"""The Feast repo and its client, the only place that imports Feast: feature rows in, offline and online reads out."""
