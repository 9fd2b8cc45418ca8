"""Contracts: the agreement on data between the rooms. Standard library and pyarrow only.

- `shop_tables`: the six tables that a shop brings, in terms of `schema`
- `source`: the declaration of one shop's data, its `source.toml`
- `ledger`: the account of what happened, to which the service appends
- `examples`: the folder of training examples, where `features` and `training` meet
- `bundle`: the manifest and the hashes of a trained model
- `gate_decision`: what the gate says of one bundle
"""
