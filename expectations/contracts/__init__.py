"""Contracts: the agreement on data between the rooms. Standard library and pyarrow only.

- `tables`: the six tables that a shop brings
- `source`: the declaration of one shop's data, its `source.toml`
- `examples`: the folder of training examples, where `features` and `training` meet
- `bundle`: the manifest and the hashes of a trained model
- `verdict`: what the gate says of one bundle
- `quarantine`: rows that broke their contract
- `decision`: one served recommendation
- `landing`: how tables and folders are written so that nothing is ever half there
- `errors`: everything that can go wrong, in one tree
"""
