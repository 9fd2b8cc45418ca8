"""The definitions of features as Ibis expressions: tables in, one row per entity and event_timestamp out.

The same expressions run on DuckDB and on Spark; nothing here is written for one engine.
"""
