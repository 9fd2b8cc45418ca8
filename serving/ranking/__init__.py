"""A request's features in, a ranked list with its explanations out. Knows nothing of HTTP."""
