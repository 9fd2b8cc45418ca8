"""The ledger: one durable account of what happened, in PostgreSQL.

In come events, exposures, outcomes, feedback, decisions and items, as the shop or the service tells them; what keeps
its contract is appended once, and ingestion reads it like any source. What is acknowledged is committed.
"""
