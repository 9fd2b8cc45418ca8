"""The approved model behind an HTTP API."""
