"""The ladder of an evaluation, in words: what each part of the model adds on the test part."""

from collections.abc import Mapping
from typing import Any

STEPS = {
    "zero_shot": "zero-shot",
    "tabular": "g alone",
    "frozen": "+ frozen language model",
    "finetuned": "+ fine-tuning",
}


def gain_text(gain: Mapping[str, Any] | None) -> str:
    """What a step gains over the step before, in the metric that decides: difference and 95 % interval."""
    if gain is None:
        return "not measured"
    low, high = gain["interval"]
    verdict = "gains" if low > 0 else "loses" if high < 0 else "gains nothing"
    return f"{verdict}: {gain['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
