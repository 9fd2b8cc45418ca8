"""The steps of the whole job as plain functions: each calls its room, and does nothing twice.

Every result is named by a fingerprint of what it was computed from; a step whose result is there already
returns it with `created=False`.
"""
