"""The model; runs alone. Training examples in; a bundle, its metrics and a gate decision out.

Import order: cli > hpo > pipeline > evaluation > inference > models > language > data > runtime, config.
"""
