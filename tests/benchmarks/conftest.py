"""The benchmarks' own tests use the training tests' small examples, encoder and recipe."""

from tests.training.conftest import encoder, examples, recipe  # noqa: F401
