"""Scores and labels in; metrics with intervals, baselines, plots and a gate decision out."""
