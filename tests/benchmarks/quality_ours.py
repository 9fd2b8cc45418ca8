"""Ours and what is left of it when a part is taken away: the product's own `fit` with a changed recipe."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from expectations.contracts.examples import (
    INTERACTION_HISTORIES,
    NEXT_INTERACTIONS,
    ROWS,
    TEXTS,
    ExampleSchema,
)
from tests.benchmarks.quality_rivals import Scored
from training.config.recipe import Recipe
from training.config.settings import nested
from training.data.dataset import Examples, read_examples
from training.data.split import TEST, VALIDATION
from training.inference.predictor import Predictor
from training.pipeline.fit import fit

# Names of features begin so: counts of where shopper and candidate meet; and whatever of a candidate is known by
# the products that it covers, which is all but its words and its own row.
USER_ITEM = ("user_item_",)
COVERED = (
    "item_num_brand",
    "item_num_category",
    "item_num_department",
    "item_num_item",
    "item_num_line",
    "item_num_products",
    "item_num_topic",
    "item_top_share",
    "item_topic_rate",
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
        title: what the page calls it.
        changes: settings of the recipe that differ from the default.
        without: features whose names begin so are taken away.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


OURS = Variant(name="ours", title="ours")
FROZEN = Variant(name="frozen", title="ours, language model frozen", changes={"encoder.trainable_layers": 0})
PAST = Variant(name="past", title="ours without the words (g alone)", changes=SILENT)
OURS_UNCROSSED = Variant(name="ours_uncrossed", title="ours", without=USER_ITEM)
PAST_UNCROSSED = Variant(name="past_uncrossed", title=PAST.title, changes=SILENT, without=USER_ITEM)
OURS_TOLD = Variant(name="ours_told", title="ours", without=USER_ITEM + COVERED)
PAST_TOLD = Variant(name="past_told", title=PAST.title, changes=SILENT, without=USER_ITEM + COVERED)


def trained(variant: Variant, examples: Path, recipe: Recipe, *, work: Path) -> tuple[Scored, float]:
    """Fit a variant and score the test part; validation probabilities where the recipe does not refit.

    Args:
        variant: what to train.
        examples: the examples folder.
        recipe: the recipe that the variant changes, with the seed.
        work: a folder for this alone; a killed fit goes on there. It is removed at the end.

    Returns:
        Probabilities, and the seconds of the fit (of its last part where it was resumed).
    """
    folder = without(examples, work / "examples", variant.without) if variant.without else examples
    changed = recipe.updated(**nested(variant.changes))
    start = time.perf_counter()
    result = fit(folder, changed, out=work / "out", work=work / "fit", log_dir=work / "log")
    seconds = time.perf_counter() - start
    scored = _scored(read_examples(folder), result.bundle, with_validation=not changed.early_stopping.refit)
    shutil.rmtree(work)
    return scored, seconds


def _scored(data: Examples, bundle: Path, *, with_validation: bool) -> Scored:
    predictor = Predictor.load(bundle)
    validation = predictor.score_examples(data, data.part == VALIDATION) if with_validation else None
    return Scored(
        test=predictor.score_examples(data, data.part == TEST).probability,
        validation=None if validation is None else validation.probability,
    )


def without(examples: Path, folder: Path, prefixes: tuple[str, ...]) -> Path:
    """An examples folder whose schema names no feature that begins so; the tables are the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ROWS, INTERACTION_HISTORIES, TEXTS, NEXT_INTERACTIONS):
        if (examples / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to((examples / name).absolute())
    schema = ExampleSchema.read(examples)
    kept = {
        kind: [name for name in getattr(schema, kind) if not name.startswith(prefixes)]
        for kind in ("numeric", "categorical")
    }
    # no fit asks for popularity, but a schema names a feature for it
    popularity = schema.popularity if schema.popularity in kept["numeric"] else schema.activity
    replace(schema, popularity=popularity, **kept).write(folder)
    return folder
