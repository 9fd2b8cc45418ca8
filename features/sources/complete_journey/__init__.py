"""Connector for the Complete Journey data, and all that only that shop needs."""
