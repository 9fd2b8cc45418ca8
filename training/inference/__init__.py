"""A bundle in, scores out: one request's candidates, or all rows of an examples folder."""
