"""A shop's tables in, features out: point-in-time training sets, and the features of a request."""
