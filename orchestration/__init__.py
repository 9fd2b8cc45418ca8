"""Dagster definitions: the only room that sees all the others."""
