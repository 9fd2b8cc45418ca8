"""Every committed page is what the code of today makes of the committed results."""

from functools import partial

import pytest

from expectations.storage.atomic import read_json
from tests.benchmarks.harness import HERE, markdown
from tests.benchmarks.quality.page import page


@pytest.mark.parametrize("results", sorted((HERE / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_page_is_what_its_results_say(results) -> None:
    made = page if results.stem == "quality" else partial(markdown, results.stem)
    assert made(read_json(results)) == (HERE / results.stem / "README.md").read_text(encoding="utf-8")
