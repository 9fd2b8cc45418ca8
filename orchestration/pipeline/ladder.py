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
    """What is gained over something else in one metric: difference and 95 % interval, where it has one."""
    if gain is None:
        return "not measured"
    if gain["interval"] is None:
        return f"{gain['difference']:+.4f}"
    low, high = gain["interval"]
    said = "gains" if low > 0 else "loses" if high < 0 else "gains nothing"
    return f"{said}: {gain['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
