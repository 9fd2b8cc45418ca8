"""The Feast repo: entities, feature views, feature services."""
