"""A TOML file in, a checked recipe out. The packaged recipe, gate rules and search space lie in `recipes/`."""
