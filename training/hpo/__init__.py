"""Hyper-parameter search: a recipe and a search space in, the best recipe out."""
