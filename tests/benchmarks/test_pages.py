"""Every committed page is what the code of today makes of the committed results."""

from importlib import import_module

import pytest

from tests.benchmarks.harness import HERE, read_results


@pytest.mark.parametrize("results", sorted((HERE / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_page_is_what_its_results_say(results) -> None:
    page = import_module(f"tests.benchmarks.{results.stem}.page").page(read_results(results.stem))
    assert page == (HERE / results.stem / "README.md").read_text(encoding="utf-8")
