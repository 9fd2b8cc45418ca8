"""The recipe: every setting of a training run, read from TOML, checked once, saved with the model."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from expectations.errors import SettingError

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "metric": ("average_precision", "auc", "ndcg_at_10", "log_loss"),
        "pooling": ("mean", "first", "last"),
        "domain_objective": ("masked", "causal", "contrastive"),
        "adapter": ("none", "lora", "adalora", "prefix", "ia3"),
    }
)
# Least and greatest value of settings whose range is not "above 0".
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "trainable_layers": (-1, math.inf),
        "layer_decay": (0.01, 1.0),
        "tree_leaves": (2, 63),
        "tree_share": (0.0, 1.0),
        **dict.fromkeys(("tabular_negatives", "negatives", "warm_share"), (1e-6, 1.0)),
        **dict.fromkeys(("token_dropout", "tabular_dropout", "words_dropout", "warmup_share"), (0.0, 0.99)),
        **dict.fromkeys(
            (
                "seed",
                "list_weight",
                "history_texts_per_step",
                "tabular_weight_decay",
                "weight_decay",
                "domain_epochs",
                "epochs",
                "tabular_epochs",
                "purchase_epochs",
                "learning_rate_encoder",
                "learning_rate_adapter",
                "learning_rate_tabular",
                "warm_starts",
            ),
            (0, math.inf),
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run; what each means is written beside it in `recipes/default.toml`.

    Raises:
        SettingError: a value is outside its range.
    """

    seed: int
    encoder: str
    max_tokens: int
    trainable_layers: int
    pooling: str
    adapter: str
    adapter_rank: int
    encode_batch: int
    token_dropout: float = 0.0  # bundles that were made before it name none
    domain_epochs: int
    domain_objective: str
    domain_texts_per_step: int
    domain_learning_rate: float
    bins: int
    members: int
    tabular_width: int
    tabular_dropout: float
    tabular_epochs: int
    tabular_learning_rate: float
    tabular_weight_decay: float
    tabular_negatives: float
    tabular_batch: int
    list_weight: float
    lists_per_step: int
    tree_models: int
    trees: int
    tree_leaves: int
    tree_rate: float
    tree_share: float
    purchase_epochs: int
    purchase_steps: int
    purchases_per_step: int
    topics_per_step: int
    purchase_learning_rate: float
    channels: int
    channel_width: int
    words_width: int
    words_dropout: float
    epochs: int
    texts_per_step: int
    history_texts_per_step: int
    negatives: float
    max_rows_per_step: int
    learning_rate_encoder: float
    learning_rate_adapter: float
    layer_decay: float
    learning_rate_head: float
    learning_rate_tabular: float
    weight_decay: float
    warmup_share: float
    clip_norm: float
    metric: str
    patience: int
    refit: bool
    calibrate: bool
    warm_share: float
    warm_starts: int

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            problem = _problem(name, value)
            if problem:
                raise SettingError(f"recipe: {name} is {value!r}; {problem}")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able values, in the order of its file."""
        return asdict(self)


def _problem(name: str, value: Any) -> str | None:
    """What is wrong with a setting's value, or None."""
    if name in CHOICES:
        return None if value in CHOICES[name] else f"choose one of {', '.join(CHOICES[name])}"
    if isinstance(value, str | bool):
        return None if value != "" else "it must not be empty"
    if name in RANGES:
        low, high = RANGES[name]
        return None if low <= value <= high else f"it must lie between {low} and {high}"
    return None if 0 < value < math.inf else "it must be above 0"


def read_recipe(path: Path | None) -> Recipe:
    """Read a recipe; settings it leaves out come from the packaged default.

    Args:
        path: a TOML file, or None for the packaged default itself.

    Raises:
        SettingError: no such file, not TOML, an unknown setting, or a value of a wrong type or range.
    """
    default = tomllib.loads(
        files("training.config").joinpath("recipes/default.toml").read_text(encoding="utf-8")
    )
    given = {} if path is None else read_toml(path, where=f"recipe {path}")
    return recipe_from({**default, **given}, where=str(path or "default recipe"))


def recipe_from(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values, such as a bundle's manifest holds.

    Raises:
        SettingError: a setting is unknown, missing, or of a wrong type or range.
    """
    known = {field.name: field.type for field in fields(Recipe)}
    needed = {field.name for field in fields(Recipe) if field.default is MISSING}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingError(
            f"{where}: unknown setting {unknown[0]!r}; known settings: {', '.join(sorted(known))}"
        )
    missing = sorted(needed - set(values))
    if missing:
        raise SettingError(f"{where}: setting {missing[0]!r} is missing; add it")
    return Recipe(**{name: typed(where, name, known[name], value) for name, value in values.items()})


def read_toml(file: Path | Traversable, *, where: str) -> dict[str, Any]:
    """The values of a TOML file; `where` says what it is.

    Raises:
        SettingError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{where} cannot be read ({error.strerror}); name an existing file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{where} is not valid TOML ({error}); correct it") from None


def typed(where: str, name: str, kind: Any, value: Any) -> Any:
    """A setting's value, a whole number as float where one is wanted.

    Raises:
        SettingError: it is of another type.
    """
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SettingError(
            f"{where}: {name} must be of type {kind.__name__}, not {value!r} ({type(value).__name__}); correct it"
        )
    return value
