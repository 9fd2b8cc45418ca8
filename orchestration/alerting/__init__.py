"""What somebody should look at: kept in PostgreSQL first, then sent to each channel until it has it.

In comes how a run ended and the settings of the channels; out go messages, and what is undelivered. Knows nothing of
Dagster.
"""
