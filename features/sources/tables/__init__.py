"""Connector for any shop that brings the contract's tables as Parquet, CSV or SQL, mapped by its `source.toml`."""
