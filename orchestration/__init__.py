"""Dagster: the only room that sees all the others."""
