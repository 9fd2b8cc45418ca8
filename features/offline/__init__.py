"""Checked tables in, feature rows and the training set out, each value known strictly before its event_timestamp."""
