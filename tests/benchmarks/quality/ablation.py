"""Ours, and what is left of it when a part is taken away: the product's own `fit` with a changed recipe."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expectations.contracts.examples import ExampleSchema
from tests.benchmarks.harness import linked_examples
from training.config.recipe import Recipe
from training.config.settings import nested
from training.data.dataset import read_examples
from training.data.split import TEST, VALIDATION
from training.inference.predictor import Predictor
from training.pipeline.fit import fit

# Names of features begin so: user-item features; and whatever of a candidate is known by the products that it
# covers, which is all but its text and its own row.
USER_ITEM = ("user_item_",)
PRODUCTS = (
    "item_num_brand",
    "item_num_category",
    "item_num_department",
    "item_num_item",
    "item_num_line",
    "item_num_products",
    "item_num_topic",
    "item_top_topic_fraction",
    "item_topic_lift",
    "item_popularity",
    "item_price",
    "item_coupon_",
    "item_discount_rate",
    "item_department",
)
# f stays silent; as it would be in vain, no more than a text's marker tokens are read.
SILENT: Mapping[str, Any] = {
    "encoder.trainable_layers": 0,
    "pretraining.next_interaction_epochs": 0,
    "finetuning.epochs": 0,
    "encoder.max_tokens": 2,
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to train ours.

    Attributes:
        name: its key.
        changes: settings of the recipe that differ from the default.
        without: features whose names begin so are taken away.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


VARIANTS = (
    Variant(name="ours"),
    Variant(name="frozen", changes={"encoder.trainable_layers": 0}),
    Variant(name="ours_no_user_item", without=USER_ITEM),
    Variant(name="ours_no_products", without=USER_ITEM + PRODUCTS),
    Variant(name="tabular", changes=SILENT),
    Variant(name="tabular_no_user_item", changes=SILENT, without=USER_ITEM),
    Variant(name="tabular_no_products", changes=SILENT, without=USER_ITEM + PRODUCTS),
)


def trained(variant: Variant, examples: Path, recipe: Recipe, *, work: Path) -> dict[str, np.ndarray]:
    """Fit a variant and score the test part, and the validation part where the recipe does not refit.

    Args:
        variant: what to train.
        examples: the examples folder.
        recipe: the recipe that the variant changes, with the seed.
        work: a folder for this alone; a killed fit goes on there. It is removed at the end.

    Returns:
        Probabilities of each part, and the seconds of the fit (of its last part where it was resumed).
    """
    folder = without(examples, work / "examples", variant.without) if variant.without else examples
    changed = recipe.updated(**nested(variant.changes))
    start = time.perf_counter()
    result = fit(folder, changed, out=work / "out", work=work / "fit", log_dir=work / "log")
    seconds = time.perf_counter() - start
    data, predictor = read_examples(folder), Predictor.load(result.bundle)
    parts = (TEST,) if changed.early_stopping.refit else (TEST, VALIDATION)
    found = {part: predictor.score_examples(data, data.part == part).probability for part in parts}
    shutil.rmtree(work)
    return {**found, "seconds": np.array(seconds)}


def without(examples: Path, folder: Path, prefixes: tuple[str, ...]) -> Path:
    """An examples folder whose schema names no feature that begins so; the tables are the same files."""
    schema = ExampleSchema.read(examples)
    left = {
        kind: [name for name in getattr(schema, kind) if not name.startswith(prefixes)]
        for kind in ("numeric", "categorical")
    }
    # no fit asks for popularity, but a schema names a feature for it
    popularity = schema.popularity if schema.popularity in left["numeric"] else schema.activity
    return linked_examples(examples, folder, popularity=popularity, **left)
