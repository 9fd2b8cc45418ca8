"""Behaviour, outcome and context features, and the point-in-time examples made of them."""
